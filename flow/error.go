package flow

import (
	"errors"
	"fmt"
	"time"
)

// Stage of a flow's life, see doc/architecture.md.
type Stage uint8

const (
	StageAccept Stage = iota
	StagePreamble
	StagePeek
	StageDecide
	StageInbound
	StageDial
	StageOutbound
	StageRelay
)

var stageNames = [...]string{"accept", "preamble", "peek", "decide", "inbound", "dial", "outbound", "relay"}

func (s Stage) String() string { return stageNames[s] }

// Fault says who has to mend what went wrong.
type Fault uint8

const (
	FaultNone Fault = iota
	FaultClient
	FaultServer
	FaultOurs
)

var faultNames = [...]string{"none", "client", "server", "ours"}

func (f Fault) String() string { return faultNames[f] }

// Error is how a flow ended where it did not end well.
type Error struct {
	Stage  Stage
	Reason Reason
	Fault  Fault
	Err    error
	Alerts Alerts

	Refusal *Refusal // of the other end's certificate; nil where the flow did not end by one
}

// Refusal is who said no to a certificate and why, in the words of verify, which are
// few and none of a stranger's.
type Refusal struct {
	Inbound  bool          // of a client
	Verifier string        // empty where time ran out before anybody had
	Reason   string        // finer than the flow's: what was wrong with a client's certificate as well
	Took     time.Duration // to say so; 0 where crypto/tls did
}

// Alerts are the numbers of TLS alerts that a flow ended with, where they are known;
// 0, which is no error, is none. What crypto/tls sends during a handshake is not.
type Alerts struct{ Received, Sent uint8 }

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: %s", e.Stage, e.Reason)
	}
	return e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Fail gives an [*Error] for r with the fault that the table of reasons names.
// The engine fills the stage.
func Fail(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Fault: r.Fault(), Err: fmt.Errorf(format, args...)}
}

// AsError gives the Error in err's chain; any other error becomes one of reason
// other. It is nil for nil.
func AsError(err error, other Reason) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Reason: other, Fault: other.Fault(), Err: err}
}
