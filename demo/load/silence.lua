-- SPDX-License-Identifier: GPL-2.0-or-later
-- wrk itself only counts answers that came. This adds how long none came at all, the end included.

local ffi = require("ffi")
ffi.cdef("struct colo_time { long s, us; }; int gettimeofday(struct colo_time *, void *);")
local clock = ffi.new("struct colo_time")
local threads = {}

local function time_us()
	ffi.C.gettimeofday(clock, nil)
	return tonumber(clock.s) * 1e6 + tonumber(clock.us)
end

function setup(thread)
	table.insert(threads, thread)
end

function init(args)
	last, longest = time_us(), 0
end

function response(status, headers, body)
	local now = time_us()
	longest = math.max(longest, now - last)
	last = now
end

function done(summary, latency, requests)
	local now = time_us()
	for _, thread in ipairs(threads) do
		io.write(string.format("Silence: %d us, at the end %d us\n",
			math.max(thread:get("longest"), now - thread:get("last")), now - thread:get("last")))
	end
end
