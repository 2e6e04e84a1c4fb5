package main

import (
	"fmt"
	"syscall"

	"sallyport/config"
	"sallyport/posture"
	"sallyport/proxy"
)

// fewFlows is fewer than anybody means to have: that the descriptors allow no more is said
// at start.
const fewFlows = 100

// limit gives the engine the bounds of the process. They stay until a restart.
func (s *service) limit(c config.ProcessLimits) {
	e := s.engine
	e.Flows, s.flowsFrom = int(c.Flows), "limits.flows of the file"
	hint := "raise limits.flows in the file, and restart"
	if e.Flows == 0 {
		var files int
		e.Flows, files = flowLimit()
		s.flowsFrom = fmt.Sprintf("RLIMIT_NOFILE, which is %d", files)
		hint = "raise LimitNOFILE= or `ulimit -n`, and restart"
		if e.Flows > 0 && e.Flows < fewFlows {
			s.log.Warn("file descriptors allow few connections at once; further clients wait", "most", e.Flows, "from", s.flowsFrom, "hint", hint)
		}
	}
	s.refusals.Waits = map[string][]any{string(proxy.LimitProcessFlows): {"most", e.Flows, "from", s.flowsFrom, "hint", hint}}
	if e.Handshakes = int(c.Handshakes); c.Handshakes == config.Auto {
		e.Handshakes = handshakeLimit(e.Flows)
	}
	most := int64(c.Memory)
	if c.Memory == config.Auto {
		most = posture.GroupMemory()
	}
	if most > 0 {
		e.Full = posture.LimitMemory(most)
	}
}

// handshakeLimit is more than handshakes are under way where none stalls: at 5,000 a
// second of 20 ms each there are 100. A quarter of all flows may be strangers.
func handshakeLimit(flows int) int {
	const least, most = 256, 4096
	if flows == 0 {
		return most
	}
	return min(max(flows/4, least), most)
}

// flowLimit leaves descriptors for files and sockets besides the two of a flow;
// further clients wait in the kernel's queue rather than fail half served. 0 flows is
// no limit.
func flowLimit() (flows, files int) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, 0
	}
	all := int(min(r.Cur, 1<<24))
	spare := 64 + min(2*proxy.MaxPipes, all/4)
	return max(all-spare, 8) / 2, all
}
