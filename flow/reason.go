package flow

// Reason is a stable code for how a flow ended, as the log and the metrics show
// it. doc/log.md lists them; a test holds that list against this table.
type Reason string

// Alert numbers of RFC 8446, section 6.
const (
	alertNone                 = 0
	alertUnexpectedMessage    = 10
	alertHandshakeFailure     = 40
	alertAccessDenied         = 49
	alertDecodeError          = 50
	alertProtocolVersion      = 70
	alertInternalError        = 80
	alertUnrecognizedName     = 112
	alertNoApplicationProtcol = 120
)

const (
	OK Reason = "ok"

	// The client's.
	ProxyHeaderMissing  Reason = "proxy_header_missing"
	ProxyHeaderBad      Reason = "proxy_header_bad"
	ProxyUntrusted      Reason = "proxy_untrusted"
	ClientLimited       Reason = "client_limited"
	HandshakeShed       Reason = "handshake_shed"
	NotTLS              Reason = "not_tls"
	PlainHTTP           Reason = "plain_http"
	HelloTimeout        Reason = "hello_timeout"
	HelloMalformed      Reason = "hello_malformed"
	HelloTooLarge       Reason = "hello_too_large"
	HelloMismatch       Reason = "hello_mismatch"
	ClientGone          Reason = "client_gone"
	UnrecognizedName    Reason = "unrecognized_name"
	NoRoute             Reason = "no_route"
	AddressRefused      Reason = "address_refused"
	VersionUnsupported  Reason = "version_unsupported"
	NoApplicationProto  Reason = "no_application_protocol"
	NoSharedCipher      Reason = "no_shared_cipher"
	ClientTimeout       Reason = "client_handshake_timeout"
	ClientHandshake     Reason = "client_handshake_failed"
	ClientCertMissing   Reason = "client_cert_missing"
	ClientCertUnknownCA Reason = "client_cert_unknown_ca"
	ClientCertExpired   Reason = "client_cert_expired"
	ClientCertRejected  Reason = "client_cert_rejected"
	ClientCertRevoked   Reason = "client_cert_revoked"
	ClientNotAllowed    Reason = "client_not_allowed"
	PSKUnknown          Reason = "psk_unknown"
	PSKMismatch         Reason = "psk_mismatch"
	ClientRejectedLeaf  Reason = "client_rejected_leaf"
	ClientAlert         Reason = "client_alert"
	ClientTruncated     Reason = "client_truncated"
	ClientReset         Reason = "client_reset"
	ClientProtocol      Reason = "client_protocol_error"
	ClientUnreachable   Reason = "client_unreachable"
	ClientRestarted     Reason = "client_restarted"

	// The server's.
	NameNotResolved    Reason = "name_not_resolved"
	DialRefused        Reason = "dial_refused"
	DialTimeout        Reason = "dial_timeout"
	DialFailed         Reason = "dial_failed"
	NoServerUp         Reason = "no_server_up"
	ServerNotTLS       Reason = "server_not_tls"
	ServerTimeout      Reason = "server_handshake_timeout"
	ServerHandshake    Reason = "server_handshake_failed"
	ServerAlert        Reason = "server_alert"
	ServerGone         Reason = "server_gone"
	ServerRejectedCert Reason = "server_rejected_our_certificate"
	ServerRejectedPSK  Reason = "server_rejected_our_psk"
	ServerNoCookie     Reason = "server_without_cookie"
	CertExpired        Reason = "cert_expired"
	CertNotYetValid    Reason = "cert_not_yet_valid"
	CertUnknownCA      Reason = "unknown_ca"
	CertInvalid        Reason = "cert_invalid"
	NameMismatch       Reason = "name_mismatch"
	WeakKey            Reason = "weak_key"
	WeakSignature      Reason = "weak_sig"
	KeyUsage           Reason = "key_usage"
	PinMismatch        Reason = "pin_mismatch"
	CADistrusted       Reason = "ca_distrusted"
	OwnCAUpstream      Reason = "own_ca_upstream"
	CertRevoked        Reason = "revoked"
	RevocationUnknown  Reason = "revocation_unknown"
	MustStaple         Reason = "must_staple"
	CTMissing          Reason = "ct_missing"
	CTInvalid          Reason = "ct_invalid"
	CTTooFew           Reason = "ct_too_few"
	DANEAbsent         Reason = "dane_absent"
	DANEInsecure       Reason = "dane_insecure"
	DANEMismatch       Reason = "dane_mismatch"
	DANEBogus          Reason = "dane_bogus"
	ALPNMismatch       Reason = "alpn_mismatch"
	ServerTruncated    Reason = "server_truncated"
	ServerReset        Reason = "server_reset"
	ServerProtocol     Reason = "server_protocol_error"
	ServerUnreachable  Reason = "server_unreachable"

	// Nobody's: a limit that was set, or the end of the process.
	IdleTimeout   Reason = "idle_timeout"
	LingerTimeout Reason = "linger_timeout"
	TotalTimeout  Reason = "total_timeout"
	Drained       Reason = "drained"
	Killed        Reason = "killed"

	// Ours.
	NoCredential Reason = "no_credential" // #nosec G101 -- the name of a reason
	MatchFailed  Reason = "match_failed"
	DANELookup   Reason = "dane_lookup"
	CTNoList     Reason = "ct_no_list"
	Internal     Reason = "internal_error"
	Panic        Reason = "panic"
)

// reasons is the one table from a reason to whose fault it is, to the alert that
// we send in clear where no handshake has begun yet, and to its meaning.
var reasons = map[Reason]struct {
	fault   Fault
	alert   uint8
	meaning string
}{
	OK: {FaultNone, alertNone, "both ends finished, or the flow was refused by nobody"},

	ProxyHeaderMissing:  {FaultClient, alertNone, "proxy_protocol is require, and the client sent no PROXY header within timeouts.peek"},
	ProxyHeaderBad:      {FaultClient, alertNone, "the client's PROXY header is malformed; the error says how"},
	ProxyUntrusted:      {FaultClient, alertNone, "proxy_protocol is require, and proxy_trust does not list the client"},
	ClientLimited:       {FaultClient, alertNone, "the client that a PROXY header names has as many connections, or as many a second, as limits allows"},
	HandshakeShed:       {FaultClient, alertNone, "limits.handshakes was reached, and of all handshakes this was the oldest"},
	NotTLS:              {FaultClient, alertUnexpectedMessage, "the first bytes were no TLS record"},
	PlainHTTP:           {FaultClient, alertNone, "plain HTTP came to a TLS port; answered with status 400"},
	HelloTimeout:        {FaultClient, alertNone, "the ClientHello was not complete within timeouts.peek"},
	HelloMalformed:      {FaultClient, alertDecodeError, "the ClientHello could not be read"},
	HelloTooLarge:       {FaultClient, alertDecodeError, "the ClientHello was larger than 64 KiB, or offers more than the `if` of a route looks at"},
	HelloMismatch:       {FaultClient, alertNone, "after the handshake, server name, ALPN or ECH were not what the route was decided on"},
	ClientGone:          {FaultClient, alertNone, "the client left before its handshake was done"},
	UnrecognizedName:    {FaultClient, alertUnrecognizedName, "no route takes this server name"},
	NoRoute:             {FaultClient, alertAccessDenied, "no route matches this client"},
	AddressRefused:      {FaultClient, alertAccessDenied, "client.from does not list the client's address"},
	VersionUnsupported:  {FaultClient, alertProtocolVersion, "the client speaks no TLS version that this route allows"},
	NoApplicationProto:  {FaultClient, alertNoApplicationProtcol, "the client offers no ALPN protocol that this route speaks"},
	NoSharedCipher:      {FaultClient, alertHandshakeFailure, "the client shares no cipher suite, group or signature scheme with this route"},
	ClientTimeout:       {FaultClient, alertNone, "the client did not finish its handshake within timeouts.handshake"},
	ClientHandshake:     {FaultClient, alertNone, "the client's handshake failed; the error says how"},
	ClientCertMissing:   {FaultClient, alertNone, "the client sent no certificate where one is asked for"},
	ClientCertUnknownCA: {FaultClient, alertNone, "the client's certificate is from no CA of client.ca"},
	ClientCertExpired:   {FaultClient, alertNone, "the client's certificate is outside its validity"},
	ClientCertRejected:  {FaultClient, alertNone, "the client's certificate fails a check; the error says which"},
	ClientCertRevoked:   {FaultClient, alertNone, "the client's certificate, or one in its chain, was revoked"},
	ClientNotAllowed:    {FaultClient, alertNone, "the client's certificate is good, but no allow rule takes it"},
	PSKUnknown:          {FaultClient, alertNone, "psk has no key for the identity that the client named"},
	PSKMismatch:         {FaultClient, alertNone, "the client has another key than psk has for its identity"},
	ClientRejectedLeaf:  {FaultClient, alertNone, "the client refused our certificate; the error has its alert"},
	ClientAlert:         {FaultClient, alertNone, "the client ended the connection by a TLS alert"},
	ClientTruncated:     {FaultClient, alertNone, "the client's stream ended without close_notify"},
	ClientReset:         {FaultClient, alertNone, "the client reset its connection"},
	ClientProtocol:      {FaultClient, alertNone, "the client broke the TLS protocol after its handshake"},
	ClientUnreachable:   {FaultClient, alertNone, "the client's host or network went away"},
	ClientRestarted:     {FaultNone, alertNone, "the client has begun a new association from the same address"},

	NameNotResolved:    {FaultServer, alertInternalError, "the server's name does not resolve"},
	DialRefused:        {FaultServer, alertInternalError, "the server refused the connection; of UDP, nobody listens there"},
	DialTimeout:        {FaultServer, alertInternalError, "the server did not accept within timeouts.dial"},
	DialFailed:         {FaultServer, alertInternalError, "the server could not be reached; the error says why"},
	NoServerUp:         {FaultServer, alertInternalError, "of several servers none could be reached or is up; the error says how each is"},
	ServerNotTLS:       {FaultServer, alertInternalError, "the server does not speak TLS on this port"},
	ServerTimeout:      {FaultServer, alertInternalError, "the server did not finish its handshake within timeouts.handshake"},
	ServerHandshake:    {FaultServer, alertInternalError, "the handshake with the server failed; the error says how"},
	ServerAlert:        {FaultServer, alertInternalError, "the server ended the connection by a TLS alert"},
	ServerGone:         {FaultServer, alertInternalError, "the server left before its handshake was done"},
	ServerRejectedCert: {FaultServer, alertInternalError, "the server refused our certificate, or wants one"},
	ServerNoCookie:     {FaultServer, alertNone, "the server answers DTLS clients before they have shown a cookie, and pass-through needs one that asks for it"},
	ServerRejectedPSK:  {FaultServer, alertInternalError, "the server knows another key for to.psk_identity, or none"},
	CertExpired:        {FaultServer, alertInternalError, "the server's certificate, or one in its chain, has expired"},
	CertNotYetValid:    {FaultServer, alertInternalError, "the server's certificate, or one in its chain, is not valid yet"},
	CertUnknownCA:      {FaultServer, alertInternalError, "the server's certificate is from no CA of to.ca"},
	CertInvalid:        {FaultServer, alertInternalError, "the server's chain breaks RFC 5280; the error says how"},
	NameMismatch:       {FaultServer, alertInternalError, "the server's certificate is not for to.name"},
	WeakKey:            {FaultServer, alertInternalError, "a key in the server's chain is below the floor of to.profile"},
	WeakSignature:      {FaultServer, alertInternalError, "a signature in the server's chain is below the floor of to.profile"},
	KeyUsage:           {FaultServer, alertInternalError, "the server's certificate must not be used to authenticate a TLS server"},
	PinMismatch:        {FaultServer, alertInternalError, "the server's key is none of to.pin"},
	CADistrusted:       {FaultServer, alertInternalError, "the server's chain has a key that is known to be in the wrong hands"},
	OwnCAUpstream:      {FaultServer, alertInternalError, "the server's certificate is of a CA whose private key is here, among our own certificates"},
	CertRevoked:        {FaultServer, alertInternalError, "the server's certificate, or one in its chain, was revoked"},
	RevocationUnknown:  {FaultServer, alertInternalError, "to.revocation is hard, and it could not be found out whether the server's certificate was revoked"},
	MustStaple:         {FaultServer, alertInternalError, "the server's certificate asks for a stapled OCSP response, and there is no good one"},
	CTMissing:          {FaultServer, alertInternalError, "the server shows no signed certificate timestamp, and to.ct requires them"},
	CTInvalid:          {FaultServer, alertInternalError, "too few of the server's signed certificate timestamps count; the error says what is wrong with which"},
	CTTooFew:           {FaultServer, alertInternalError, "the server's signed certificate timestamps are good, and of too few logs or operators"},
	DANEAbsent:         {FaultServer, alertInternalError, "the server's name has no TLSA record that can be used, and to.dane requires one"},
	DANEInsecure:       {FaultServer, alertInternalError, "the zone of the server's name is not signed (DNSSEC), and to.dane requires TLSA records"},
	DANEMismatch:       {FaultServer, alertInternalError, "the server's certificate matches none of its TLSA records"},
	DANEBogus:          {FaultServer, alertInternalError, "the signatures (DNSSEC) over the server's name or its TLSA records are wrong"},
	ALPNMismatch:       {FaultServer, alertInternalError, "the server did not choose the protocol that the client was given"},
	ServerTruncated:    {FaultServer, alertNone, "the server's stream ended without close_notify"},
	ServerReset:        {FaultServer, alertNone, "the server reset its connection"},
	ServerProtocol:     {FaultServer, alertNone, "the server broke the TLS protocol after its handshake"},
	ServerUnreachable:  {FaultServer, alertNone, "the server's host or network went away"},

	IdleTimeout:   {FaultNone, alertNone, "nothing moved for timeouts.idle"},
	LingerTimeout: {FaultNone, alertNone, "one end had finished and nothing moved for timeouts.linger"},
	TotalTimeout:  {FaultNone, alertNone, "the flow lived for timeouts.total"},
	Killed:        {FaultNone, alertNone, "the operator ended it: sallyport kill"},
	Drained:       {FaultNone, alertNone, "the process ended, and timeouts.drain had passed or a further signal came"},

	NoCredential: {FaultOurs, alertInternalError, "we have no certificate or key for this handshake"},
	MatchFailed:  {FaultOurs, alertInternalError, "the `if` of a route that might take the client could not be evaluated; the error says why"},
	DANELookup:   {FaultOurs, alertInternalError, "the server's TLSA records could not be looked up; the error says what the resolver did"},
	CTNoList:     {FaultOurs, alertInternalError, "to.ct requires certificate transparency, and no list of logs of ct_log_list could be had"},
	Internal:     {FaultOurs, alertInternalError, "an error of ours; the error says which"},
	Panic:        {FaultOurs, alertInternalError, "a fault in sallyport ended this flow; please report the stack in the log"},
}

// Fault says who has to mend it.
func (r Reason) Fault() Fault { return reasons[r].fault }

// Alert is the number of the TLS alert sent in clear where a flow is refused
// before its handshake; ok is false where none is.
func (r Reason) Alert() (number uint8, ok bool) {
	a := reasons[r].alert
	return a, a != alertNone
}

// Meaning is one line for operators.
func (r Reason) Meaning() string { return reasons[r].meaning }

// Reasons lists every code, in no order.
func Reasons() []Reason {
	list := make([]Reason, 0, len(reasons))
	for r := range reasons {
		list = append(list, r)
	}
	return list
}
