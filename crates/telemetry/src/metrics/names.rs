//! Every metric the gateway exposes: name, type, unit, labels, and what it says.

/// The type of a family in OpenMetrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

impl Kind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

macro_rules! metrics {
    ($(
        $variant:ident = $kind:ident $name:literal $unit:literal [$($label:literal),*]
            $help:literal;
    )*) => {
        /// A family of metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Metric {
            $(#[doc = $help] $variant,)*
        }

        impl Metric {
            /// In the order they are exposed.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The family's name; samples of counters end in `_total` besides.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// The end of the name, or empty.
            #[must_use]
            pub const fn unit(self) -> &'static str {
                match self { $(Self::$variant => $unit,)* }
            }

            #[must_use]
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*],)* }
            }

            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

metrics! {
    Requests = Counter "portcullis_requests" "" ["route", "method", "status_class"]
        "Requests by class of their answer; none: the client was gone before there was one.";
    RequestDuration = Histogram "portcullis_request_duration_seconds" "seconds" ["route"]
        "From the complete request head to the last byte of the answer.";
    BackendDuration = Histogram "portcullis_backend_duration_seconds" "seconds" ["route"]
        "Of it, waiting for the backend, all attempts together.";
    GatewayAdded = Histogram "portcullis_gateway_added_seconds" "seconds" ["route"]
        "Of it, what the request would not have taken without the gateway.";
    RequestBody = Histogram "portcullis_request_body_bytes" "bytes" []
        "Body bytes received from clients.";
    ResponseBody = Histogram "portcullis_response_body_bytes" "bytes" []
        "Body bytes sent to clients.";
    VariantRequests = Counter "portcullis_variant_requests" "" ["route", "variant", "status_class"]
        "Requests of a route with several variants, by variant and class of their answer.";
    VariantDuration = Histogram "portcullis_variant_duration_seconds" "seconds" ["route", "variant"]
        "How long its answers took, as in portcullis_request_duration_seconds.";
    Faults = Counter "portcullis_faults" "" ["route", "fault"]
        "Requests that were delayed or aborted on purpose, by the policy faults.";
    MirrorRequests = Counter "portcullis_mirror_requests" "" ["route", "result"]
        "Copies sent to a route's mirror: answered, failed, or late, without an answer in time.";
    MirrorSkipped = Counter "portcullis_mirror_skipped" "" ["route", "reason"]
        "Requests drawn for a mirror of which no copy was sent.";
    MirrorStatuses = Counter "portcullis_mirror_statuses" ""
        ["route", "status_class", "mirror_class"]
        "Answered copies by the class of the status that counted and of the mirror's.";
    MirrorStatusDifferences = Counter "portcullis_mirror_status_differences" "" ["route"]
        "Of them, those whose two statuses, of HTTP or of gRPC, were not the same.";
    MirrorSizeDifference = Histogram "portcullis_mirror_size_difference_bytes" "bytes" ["route"]
        "By how much the mirror's body was longer or shorter, where the statuses were the same.";
    MirrorLatencyDifference = Histogram "portcullis_mirror_latency_difference_seconds" "seconds"
        ["route", "mirror"]
        "By how much the head of the mirror's answer came slower or faster.";
    AnalysisEvents = Counter "portcullis_analysis_events" "" ["route", "event"]
        "What happened to canaries; event: step, promoted, rolled_back, paused, resumed.";
    AnalysisShare = Gauge "portcullis_analysis_canary_ratio" "ratio" ["route"]
        "The share of the requests that the analysis of a route gives its canary.";
    AnalysisPaused = Gauge "portcullis_analysis_paused" "" ["route"]
        "1 while somebody else's override decides about the weights.";
    AnalysisEvidence = Gauge "portcullis_analysis_evidence" "" ["route", "cause"]
        "So many to one for the canary being worse, by errors or slow; at 2000 it is rolled back.";
    Upgrades = Counter "portcullis_upgrades" "" ["route"]
        "Connections that became a WebSocket.";
    UpgradesActive = Gauge "portcullis_upgrades_active" "" ["route"]
        "Of them, those that still are one.";
    PolicyDuration = Histogram "portcullis_policy_duration_seconds" "seconds" ["policy"]
        "Time spent in a policy, of 1 in 128 requests and of all that waited in it.";
    Connections = Gauge "portcullis_connections" "" ["listener"]
        "Open client connections.";
    ConnectionsAccepted = Counter "portcullis_connections_accepted" "" ["listener"]
        "Client connections accepted.";
    ConnectionsRefused = Counter "portcullis_connections_refused" "" ["listener"]
        "Client connections closed at once because of a limit.";
    AcceptPauses = Counter "portcullis_accept_pauses" "" ["listener"]
        "Times that accepting paused, for want of file descriptors or because of a limit.";
    HandshakeFailures = Counter "portcullis_tls_handshake_failures" "" ["listener"]
        "TLS handshakes that failed.";
    BackendRequests = Counter "portcullis_backend_requests" "" ["backend"]
        "Attempts sent to a backend.";
    BackendRetries = Counter "portcullis_backend_retries" "" ["backend"]
        "Of them, those after the first of a request.";
    BackendHedges = Counter "portcullis_backend_hedges" "" ["backend"]
        "Of the retries, those sent beside a request that was slow and had not failed.";
    BackendZoneRequests = Counter "portcullis_backend_zone_requests" "" ["backend", "zone"]
        "Attempts in the gateway's own zone (local) and in others, where the backend prefers it.";
    BackendZoneShare = Gauge "portcullis_backend_zone_share" "" ["backend"]
        "What part of them is meant for the own zone; missing while zones do not count.";
    SubsetUsable = Gauge "portcullis_subset_usable" "" ["backend", "subset", "empty"]
        "Endpoints with the labels that routes keep to, of those that get requests.";
    RetriesRefused = Counter "portcullis_backend_retries_refused" "" ["backend"]
        "Retries that the backend's retry_budget did not allow.";
    BackendConnects = Counter "portcullis_backend_connects" "" ["backend"]
        "Connections made to a backend.";
    PoolConnections = Gauge "portcullis_pool_connections" "" ["backend", "state"]
        "Connections to a backend, idle and active.";
    PoolLimitHits = Counter "portcullis_pool_limit_hits" "" ["backend", "limit"]
        "Times a backend's connections_max or pending_max refused.";
    PoolPending = Gauge "portcullis_pool_pending" "" ["backend"]
        "Requests that wait for a connection.";
    BulkheadInFlight = Gauge "portcullis_bulkhead_in_flight" "" ["kind", "name"]
        "Requests under way, of a backend or of a route.";
    BulkheadLimit = Gauge "portcullis_bulkhead_limit" "" ["kind", "name"]
        "How many may be: requests_max, or what adaptive concurrency makes of it.";
    BulkheadQueued = Gauge "portcullis_bulkhead_queued" "" ["kind", "name"]
        "Requests that wait for their turn.";
    BulkheadRefused = Counter "portcullis_bulkhead_refused" "" ["kind", "name", "reason"]
        "Requests refused because pending_max waited (full), or after pending_timeout (late).";
    EndpointUp = Gauge "portcullis_endpoint_up" "" ["backend", "endpoint"]
        "1 while the endpoint is used, 0 while its checks say that it is down or another service.";
    EndpointAside = Gauge "portcullis_endpoint_aside" "" ["backend", "endpoint"]
        "1 while a failed connection keeps requests away.";
    EndpointInFlight = Gauge "portcullis_endpoint_in_flight" "" ["backend", "endpoint"]
        "Requests under way.";
    EndpointRequests = Counter "portcullis_endpoint_requests" "" ["backend", "endpoint"]
        "Requests started.";
    EndpointConnectFailures = Counter "portcullis_endpoint_connect_failures" ""
        ["backend", "endpoint"]
        "Connections that could not be made.";
    EndpointTransitions = Counter "portcullis_endpoint_transitions" "" ["backend", "endpoint"]
        "Changes between up and down.";
    DiscoveryAge = Gauge "portcullis_discovery_age_seconds" "seconds" ["backend"]
        "Since the place that the backend's endpoints come from last answered.";
    DiscoveryListings = Counter "portcullis_discovery_listings" "" ["backend", "result"]
        "Answers of that place: ok, failed, and held, which were empty and not confirmed.";
    DiscoveryEndpoints = Gauge "portcullis_discovery_endpoints" "" ["backend"]
        "Endpoints that the backend has from there.";
    EndpointEjected = Gauge "portcullis_endpoint_ejected" "" ["backend", "endpoint"]
        "1 while it gets no requests because it fails or dawdles more than the others.";
    EndpointEjections = Counter "portcullis_endpoint_ejections" ""
        ["backend", "endpoint", "reason"]
        "Times that it was ejected: for errors, statuses or latency.";
    EndpointBreaker = Gauge "portcullis_endpoint_breaker" "" ["backend", "endpoint", "state"]
        "1 for the state that its circuit breaker is in: closed, open or half-open.";
    EndpointBreakerOpened = Counter "portcullis_endpoint_breaker_opened" ""
        ["backend", "endpoint"]
        "Times that its circuit breaker opened.";
    BackendBreaker = Gauge "portcullis_backend_breaker" "" ["backend", "state"]
        "1 for the state that the circuit breaker of the whole backend is in.";
    BackendBreakerOpened = Counter "portcullis_backend_breaker_opened" "" ["backend"]
        "Times that the circuit breaker of the whole backend opened.";
    BackendBreakerRefused = Counter "portcullis_backend_breaker_refused" "" ["backend"]
        "Requests that the circuit breaker of the whole backend refused.";
    BackendPanic = Gauge "portcullis_backend_panic" "" ["backend"]
        "1 while so few endpoints are well that the others are used too.";
    BackendPriority = Gauge "portcullis_backend_priority" "" ["backend"]
        "The priority of endpoints that is used, where there are several.";
    LimitDecisions = Counter "portcullis_limit_decisions" "" ["limit", "decision"]
        "Requests that a limit allowed or refused.";
    LimitKeys = Gauge "portcullis_limit_keys" "" ["limit"]
        "Keys that a limit remembers.";
    LimitKeysEvicted = Counter "portcullis_limit_keys_evicted" "" ["limit"]
        "Keys forgotten early because keys_max was reached.";
    AuthKeys = Gauge "portcullis_auth_keys" "" ["auth"]
        "Keys fetched from an issuer that can verify; 0 before the first have come.";
    AuthKeysAge = Gauge "portcullis_auth_keys_age_seconds" "seconds" ["auth"]
        "Since the issuer last gave its keys, also when they come from the disk.";
    AuthKeysFetches = Counter "portcullis_auth_keys_fetches" "" ["auth", "result"]
        "Fetches of an issuer's keys that brought them (ok) or did not (failed).";
    Deadlines = Counter "portcullis_deadlines" "" ["kind"]
        "Deadlines that passed.";
    Bounds = Counter "portcullis_bounds" "" ["bound"]
        "Times that a limit of the gateway itself was hit.";
    ShedRequests = Counter "portcullis_shed_requests" "" ["priority"]
        "Requests refused because the gateway had more to do than it can.";
    ShedPressure = Gauge "portcullis_shed_pressure" "" []
        "Of the worker that refuses most: above 0 sheddable, above 1 default, above 2 critical ones.";
    WorkerDelay = Gauge "portcullis_worker_delay_seconds" "seconds" []
        "How long work waited for its turn lately, in the worker that is furthest behind.";
    Panics = Counter "portcullis_panics" "" []
        "Requests that ended in a panic.";
    Reloads = Counter "portcullis_reloads" "" ["result"]
        "Configurations loaded and refused.";
    ReloadLastSuccess = Gauge "portcullis_reload_last_success_timestamp_seconds" "seconds" []
        "When the configuration that serves began to serve.";
    ConfigNumber = Gauge "portcullis_config_number" "" []
        "The N of config@N in the access log.";
    ConfigInfo = Info "portcullis_config" "" ["version"]
        "The configuration that serves.";
    CertificateExpiry = Gauge "portcullis_tls_certificate_expiry_timestamp_seconds" "seconds"
        ["certificate"]
        "When a certificate ends.";
    LogLines = Counter "portcullis_log_lines" "" ["result"]
        "Lines of the access log, written and dropped.";
    BuildInfo = Info "portcullis_build" "" ["version"]
        "The version that runs.";
    ProcessStartTime = Gauge "process_start_time_seconds" "seconds" []
        "When the process started.";
    ProcessMemory = Gauge "process_resident_memory_bytes" "bytes" []
        "Resident memory.";
    ProcessOpenFds = Gauge "process_open_fds" "" []
        "Open file descriptors.";
}
