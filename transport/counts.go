package transport

import "sync/atomic"

// PacketCount is a kind of thing that a datagram listener counts.
type PacketCount uint8

const (
	PacketsReceived         PacketCount = iota // datagrams in all
	PacketsNotDTLS                             // dropped: no DTLS record, or a ClientHello that is none
	PacketsNoAssociation                       // dropped: from an address that has none, and no ClientHello
	PacketsUnknownCID                          // dropped: no association has this connection ID
	PacketsBadCookie                           // a ClientHello with a wrong cookie, or one too old
	PacketsVerifySent                          // HelloVerifyRequests sent
	PacketsVerifyUnsent                        // HelloVerifyRequests that the socket did not take at once
	PacketsBadFragments                        // dropped: parts of a ClientHello that make none
	PacketsHalfOpenEvicted                     // parts of a ClientHello given up, for others or for their age
	PacketsRefused                             // dropped: from an address that may not begin an association
	PacketsOverHandshakes                      // new associations refused: too many handshakes
	PacketsOverAssociations                    // new associations refused: too many
	PacketsOverBacklog                         // new associations refused: nobody accepts them
	PacketsQueueFull                           // dropped: the association does not read them
	PacketsTooLarge                            // not sent: larger than UDP carries
	PacketsOverCredit                          // not sent: to an address that a client has moved to, more than three times what came from there
	PacketsUnsent                              // not sent: the system was short of something
	PacketsHeaderMissing                       // dropped: without the header that says whose it is
	PacketsHeaderBad                           // dropped: its header is malformed
	PacketsHeaderUntrusted                     // dropped: from an address that may not say for whom it speaks
	PacketsHeaderOther                         // dropped: its header names another client than the association of its sender began with
	PacketsBegun                               // associations begun
	PacketsRestarted                           // associations ended by their client's new one

	packetCounts
)

// names are those of the metrics.
var packetCountNames = [packetCounts]string{
	"received", "not_dtls", "no_association", "unknown_cid", "bad_cookie", "verify_sent", "verify_unsent", "bad_fragments",
	"half_open_evicted", "refused", "over_handshakes", "over_associations", "over_backlog", "queue_full", "too_large", "over_credit",
	"unsent", "proxy_header_missing", "proxy_header_bad", "proxy_untrusted", "proxy_other_client", "begun", "restarted",
}

func (k PacketCount) String() string { return packetCountNames[k] }

// Drop says whether k counts datagrams, or associations, that came to nothing.
func (k PacketCount) Drop() bool {
	switch k {
	case PacketsReceived, PacketsVerifySent, PacketsBegun, PacketsRestarted:
		return false
	}
	return true
}

// PacketCounters count since the listener was bound.
type PacketCounters [packetCounts]atomic.Uint64

func (c *PacketCounters) add(k PacketCount) { c[k].Add(1) }

// PacketSnapshot is what counters said at one moment, by [PacketCount].
type PacketSnapshot [packetCounts]uint64

// Snapshot reads all of them.
func (c *PacketCounters) Snapshot() (s PacketSnapshot) {
	for i := range c {
		s[i] = c[i].Load()
	}
	return s
}
