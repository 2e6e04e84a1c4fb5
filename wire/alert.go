package wire

import "fmt"

// Alert is the description of a TLS alert (RFC 8446, section 6; RFC 5246,
// section 7.2; RFC 6066, section 9; RFC 7301, section 3.2; RFC 7507; RFC 9849).
type Alert uint8

const (
	AlertCloseNotify                  Alert = 0
	AlertUnexpectedMessage            Alert = 10
	AlertBadRecordMAC                 Alert = 20
	AlertDecryptionFailed             Alert = 21
	AlertRecordOverflow               Alert = 22
	AlertDecompressionFailure         Alert = 30
	AlertHandshakeFailure             Alert = 40
	AlertNoCertificate                Alert = 41
	AlertBadCertificate               Alert = 42
	AlertUnsupportedCertificate       Alert = 43
	AlertCertificateRevoked           Alert = 44
	AlertCertificateExpired           Alert = 45
	AlertCertificateUnknown           Alert = 46
	AlertIllegalParameter             Alert = 47
	AlertUnknownCA                    Alert = 48
	AlertAccessDenied                 Alert = 49
	AlertDecodeError                  Alert = 50
	AlertDecryptError                 Alert = 51
	AlertExportRestriction            Alert = 60
	AlertProtocolVersion              Alert = 70
	AlertInsufficientSecurity         Alert = 71
	AlertInternalError                Alert = 80
	AlertInappropriateFallback        Alert = 86
	AlertUserCanceled                 Alert = 90
	AlertNoRenegotiation              Alert = 100
	AlertMissingExtension             Alert = 109
	AlertUnsupportedExtension         Alert = 110
	AlertCertificateUnobtainable      Alert = 111
	AlertUnrecognizedName             Alert = 112
	AlertBadCertificateStatusResponse Alert = 113
	AlertBadCertificateHashValue      Alert = 114
	AlertUnknownPSKIdentity           Alert = 115
	AlertCertificateRequired          Alert = 116
	AlertNoApplicationProtocol        Alert = 120
	AlertECHRequired                  Alert = 121
)

var alertNames = map[Alert]string{
	AlertCloseNotify:                  "close_notify",
	AlertUnexpectedMessage:            "unexpected_message",
	AlertBadRecordMAC:                 "bad_record_mac",
	AlertDecryptionFailed:             "decryption_failed",
	AlertRecordOverflow:               "record_overflow",
	AlertDecompressionFailure:         "decompression_failure",
	AlertHandshakeFailure:             "handshake_failure",
	AlertNoCertificate:                "no_certificate",
	AlertBadCertificate:               "bad_certificate",
	AlertUnsupportedCertificate:       "unsupported_certificate",
	AlertCertificateRevoked:           "certificate_revoked",
	AlertCertificateExpired:           "certificate_expired",
	AlertCertificateUnknown:           "certificate_unknown",
	AlertIllegalParameter:             "illegal_parameter",
	AlertUnknownCA:                    "unknown_ca",
	AlertAccessDenied:                 "access_denied",
	AlertDecodeError:                  "decode_error",
	AlertDecryptError:                 "decrypt_error",
	AlertExportRestriction:            "export_restriction",
	AlertProtocolVersion:              "protocol_version",
	AlertInsufficientSecurity:         "insufficient_security",
	AlertInternalError:                "internal_error",
	AlertInappropriateFallback:        "inappropriate_fallback",
	AlertUserCanceled:                 "user_canceled",
	AlertNoRenegotiation:              "no_renegotiation",
	AlertMissingExtension:             "missing_extension",
	AlertUnsupportedExtension:         "unsupported_extension",
	AlertCertificateUnobtainable:      "certificate_unobtainable",
	AlertUnrecognizedName:             "unrecognized_name",
	AlertBadCertificateStatusResponse: "bad_certificate_status_response",
	AlertBadCertificateHashValue:      "bad_certificate_hash_value",
	AlertUnknownPSKIdentity:           "unknown_psk_identity",
	AlertCertificateRequired:          "certificate_required",
	AlertNoApplicationProtocol:        "no_application_protocol",
	AlertECHRequired:                  "ech_required",
}

// String is the RFC's name, or the number.
func (a Alert) String() string {
	if name, ok := alertNames[a]; ok {
		return name
	}
	return fmt.Sprintf("alert(%d)", uint8(a))
}

// AlertLevel is warning or fatal; since TLS 1.3 the description alone decides.
type AlertLevel uint8

const (
	AlertWarning AlertLevel = 1
	AlertFatal   AlertLevel = 2
)

func (l AlertLevel) String() string {
	switch l {
	case AlertWarning:
		return "warning"
	case AlertFatal:
		return "fatal"
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

const alertRecord = recordHeader + 2

// AlertRecord is a fatal alert in clear, for a peer whose hello had this
// legacy_version; 0 where there was no hello. Clients older than TLS 1.2 may
// refuse a record version above their own, and all newer ones take either.
//
// A version of DTLS gives a record of DTLS, which is the last that we send in
// epoch 0: its sequence number is above those of all HelloVerifyRequests, so that
// it does not pass for a replay of one.
func AlertRecord(version uint16, a Alert) []byte {
	if version>>8 == dtlsMajor {
		return append(appendDTLSHeader(nil, typeAlert, version, lastClearSeq, 2), byte(AlertFatal), byte(a))
	}
	minor := byte(3)
	if version < VersionTLS12 {
		minor = 1
	}
	return []byte{typeAlert, 3, minor, 0, 2, byte(AlertFatal), byte(a)}
}

// ParseAlert reads the alert record in clear that b begins with. It gives
// [ErrMore] while b may still become one, and [ErrNotTLS] once it cannot, which
// an encrypted alert is too.
func ParseAlert(b []byte) (AlertLevel, Alert, error) {
	for i, want := range [...]byte{typeAlert, 3, 0, 0, 2} {
		if i < len(b) && b[i] != want && i != 2 {
			return 0, 0, ErrNotTLS
		}
	}
	if len(b) > recordHeader && b[recordHeader] != byte(AlertWarning) && b[recordHeader] != byte(AlertFatal) {
		return 0, 0, ErrNotTLS
	}
	if len(b) < alertRecord {
		return 0, 0, ErrMore
	}
	return AlertLevel(b[recordHeader]), Alert(b[recordHeader+1]), nil
}
