package main

import (
	"syscall"

	"sallyport/config"
	"sallyport/posture"
	"sallyport/proxy"
)

// limit gives the engine the bounds of the process. They stay until a restart.
func (s *service) limit(c config.ProcessLimits) {
	e := s.engine
	if e.Flows = int(c.Flows); e.Flows == 0 {
		e.Flows = flowLimit()
	}
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
// further clients wait in the kernel's queue rather than fail half served.
func flowLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	all := int(min(r.Cur, 1<<24))
	spare := 64 + min(2*proxy.MaxPipes, all/4)
	return max(all-spare, 8) / 2
}
