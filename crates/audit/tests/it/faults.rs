//! A gateway that makes one mistake: each has to be found, also by the quick audit.

use std::sync::{Mutex, PoisonError};

use portcullis_core::planted::{Fault, plant};

use crate::place::{CONFIG, OTHERS, run};

/// The mistake is the whole process's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Plants the fault and looks for the finding.
fn find(config: &str, fault: Fault, code: &str) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    plant(Some(fault));
    let report = run(config, true);
    plant(None);
    let report = report.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
    let found = report.findings.iter().find(|finding| finding.code == code);
    let Some(found) = found else {
        panic!("{fault:?} was not found as {code}:\n{}", report.human("gateway.yaml"));
    };
    assert!(!report.holds(), "{found:?}");
}

macro_rules! faults {
    ($config:ident: $($name:ident: $fault:ident => $code:literal,)*) => {
        $(
            #[test]
            fn $name() {
                find($config, Fault::$fault, $code);
            }
        )*
    };
}

faults! {
    CONFIG:
    route_order: RouteOrder => "reached-backend",
    policy_missing: PolicyMissing => "reached-backend",
    listener_without_auth: ListenerWithoutAuth => "reached-backend",
    auth_after_forward: AuthAfterForward => "reached-backend",
    path_not_canonical: PathNotCanonical => "reached-backend",
    path_case: PathCase => "reached-backend",
    path_parameter_cut: PathParameterCut => "reached-backend",
    encoded_slash: EncodedSlash => "reached-backend",
    double_decoding: DoubleDecoding => "reached-backend",
    backslash: Backslash => "reached-backend",
    host_dot: HostDot => "reached-backend",
    algorithm_from_token: AlgorithmFromToken => "reached-backend",
    algorithm_none: AlgorithmNone => "reached-backend",
    signature_not_checked: SignatureNotChecked => "reached-backend",
    expiry_not_checked: ExpiryNotChecked => "reached-backend",
    not_before_not_checked: NotBeforeNotChecked => "reached-backend",
    audience_not_checked: AudienceNotChecked => "reached-backend",
    issuer_not_checked: IssuerNotChecked => "reached-backend",
    embedded_key_trusted: EmbeddedKeyTrusted => "reached-backend",
    unknown_key_tries_all: UnknownKeyTriesAll => "reached-backend",
    revoked_key_accepted: RevokedKeyAccepted => "reached-backend",
    expired_key_accepted: ExpiredKeyAccepted => "reached-backend",
    any_scope: AnyScope => "reached-backend",
    tenant_ignored: TenantIgnored => "identity-not-told",
    second_credential_wins: SecondCredentialWins => "answered",
    head_not_asked: HeadNotAsked => "reached-backend",
    options_not_asked: OptionsNotAsked => "reached-backend",
    unknown_method_not_asked: UnknownMethodNotAsked => "reached-backend",
    http2_not_asked: Http2NotAsked => "reached-backend",
    method_override: MethodOverride => "reached-backend",
    path_override: PathOverride => "reached-backend",
    client_identity_kept: ClientIdentityKept => "identity-spoofed",
    credential_forwarded: CredentialForwarded => "credential-forwarded",
    identity_not_told: IdentityNotTold => "identity-not-told",
    everybody_refused: EverybodyRefused => "good-refused",
}

faults! {
    OTHERS:
    role_ignored: RoleIgnored => "reached-backend",
    claim_ignored: ClaimIgnored => "reached-backend",
    tenant_of_path_ignored: TenantOfPathIgnored => "reached-backend",
    certificate_rule_ignored: CertificateRuleIgnored => "reached-backend",
    message_not_verified: MessageNotVerified => "reached-backend",
    old_signature_accepted: OldSignatureAccepted => "reached-backend",
    uncovered_accepted: UncoveredAccepted => "reached-backend",
    nonce_replayed: NonceReplayed => "reached-backend",
    password_not_checked: PasswordNotChecked => "reached-backend",
    inactive_token_accepted: InactiveTokenAccepted => "reached-backend",
    binding_ignored: BindingIgnored => "reached-backend",
    certificate_name_ignored: CertificateNameIgnored => "reached-backend",
    certificate_of_anybody: CertificateOfAnybody => "reached-backend",
    authorizer_ignored: AuthorizerIgnored => "reached-backend",
    copied_field_kept: CopiedFieldKept => "identity-spoofed",
    login_state_not_checked: LoginStateNotChecked => "logged-in",
    login_nonce_not_checked: LoginNonceNotChecked => "logged-in",
    login_twice: LoginTwice => "logged-in",
    ended_session_accepted: EndedSessionAccepted => "reached-backend",
    cross_site_accepted: CrossSiteAccepted => "reached-backend",
}
