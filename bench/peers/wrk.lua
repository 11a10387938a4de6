-- wrk's report as one line of JSON. With two more arguments, `path FILE` or `bearer FILE`, the requests
-- go through the lines of the file, one after another; a third says how many lines to leave out first.
local requests, at = nil, 0

function init(args)
    if not args[2] then return end
    requests = {}
    for line in io.lines(args[2]) do
        local path = wrk.path
        if args[1] == "path" then path = line else wrk.headers["Authorization"] = "Bearer " .. line end
        requests[#requests + 1] = wrk.format("GET", path)
    end
    at = tonumber(args[3] or 0)
    request = function()
        at = at % #requests + 1
        return requests[at]
    end
end

function done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '{"requests":%d,"errors":%d,"seconds":%f,"p50_us":%d,"p99_us":%d,"p999_us":%d}\n',
        summary.requests, failed, summary.duration / 1e6,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
