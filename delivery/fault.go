package delivery

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
)

// Code names a kind of failure; stable, for logs, metrics and the API.
type Code string

// Codes of failures.
const (
	CodeStatus         Code = "http_status"     // the consumer answered, but not 2xx
	CodeBlockedAddress Code = "blocked_address" // the guard refused the endpoint
	CodeDNS            Code = "dns"             // the host has no address
	CodeConnectRefused Code = "connect_refused"
	CodeConnectTimeout Code = "connect_timeout" // no connection in time
	CodeConnect        Code = "connect"         // no connection for another reason
	CodeTLS            Code = "tls"
	CodeTimeout        Code = "timeout"   // no answer in time
	CodeReset          Code = "reset"     // the connection broke before an answer
	CodeEOF            Code = "eof"       // the connection was closed before an answer
	CodeMalformed      Code = "malformed" // what came back is not HTTP
	CodeCanceled       Code = "canceled"  // Postroad itself ended the request
)

// Fault says why a request was no success.
type Fault struct {
	// Code is empty on success.
	Code Code
	// Text is one line for people; of the endpoint it names scheme and host
	// only.
	Text string
}

// errTimedOut ends a request whose time is up.
var errTimedOut = errors.New("the request's time is up")

// facts are what is known of a request that got no answer.
type facts struct {
	connected bool // there was a connection
	reused    bool // which had served before
	answered  bool // a byte of an answer came
	timedOut  bool // the request's time was up
	canceled  bool // its caller gave it up
}

// judgeFault judges an error. resend reports that the connection had served
// before and ended without a byte of an answer: most likely the consumer
// closed it just as the request set out.
func judgeFault(t *Target, err error, got facts) (f Fault, resend bool) {
	to, within := t.origin, " within "+t.timeout.String()
	var blocked *BlockedError
	switch {
	case errors.As(err, &blocked):
		return Fault{CodeBlockedAddress, "refused to call " + to + ": " + blocked.Reason}, false
	case got.canceled:
		return Fault{CodeCanceled, "the request to " + to + " was ended by Postroad"}, false
	case got.timedOut && !got.connected:
		return Fault{CodeConnectTimeout, "no connection to " + to + within}, false
	case got.timedOut:
		return Fault{CodeTimeout, "no answer from " + to + within}, false
	case !got.connected:
		return connectFault(err, to), false
	}
	return exchangeFault(err, to, got.answered), got.reused && !got.answered
}

// connectFault judges an error from before there was a connection.
func connectFault(err error, to string) Fault {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return Fault{CodeDNS, "the host of " + to + " does not exist"}
	case errors.As(err, &dns):
		return Fault{CodeDNS, "the host of " + to + " cannot be looked up"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return Fault{CodeConnectRefused, "connection refused by " + to}
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		return Fault{CodeConnectTimeout, "no connection to " + to + " in time"}
	case errors.As(err, &op) && op.Op == "dial":
		return Fault{CodeConnect, "cannot connect to " + to}
	}
	return Fault{CodeTLS, "no TLS connection to " + to + ": " + tlsReason(err)}
}

// tlsReason puts a failed handshake into words that quote nothing of the
// certificate.
func tlsReason(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var timeout net.Error
	switch {
	case errors.As(err, &name):
		return "its certificate is for another name"
	case errors.As(err, &unknown):
		return "its certificate is signed by an unknown authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or is not yet valid"
	case errors.As(err, &invalid):
		return "its certificate is not valid"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS"
	case errors.As(err, &alert):
		return "it refused the handshake"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "the handshake took too long"
	}
	return "the handshake failed"
}

// exchangeFault judges an error from after there was a connection.
func exchangeFault(err error, to string, answered bool) Fault {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return Fault{CodeReset, "connection reset by " + to + " before it answered"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), !answered && !errors.As(err, &timeout):
		// An idle connection that the consumer closed has an error of its own
		// in net/http, which cannot be asked for: no byte came, that is enough.
		return Fault{CodeEOF, "connection closed by " + to + " before it answered"}
	case errors.As(err, &timeout) && timeout.Timeout():
		return Fault{CodeTimeout, "no answer from " + to + " in time"}
	case errors.As(err, &timeout):
		return Fault{CodeReset, "connection to " + to + " broke before it answered"}
	}
	return Fault{CodeMalformed, "what " + to + " answered is not valid HTTP"}
}
