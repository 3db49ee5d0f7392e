// Package delivery sends events to consumers over HTTP: it renders and signs
// requests, guards which addresses may be connected to, and judges answers.
//
// It owns one request and its answer. It refuses to decide what follows: how
// long to wait, what an answer costs an event and when to stop are its
// caller's, and so is the one re-send that an Answer may allow. It keeps no
// state between requests but open connections, stores nothing and logs
// nothing. No text it returns holds a URL's path or query, a header's value or
// a secret; what a consumer answered is kept apart, in Answer.Response.
//
// Requests take one of two paths with the same outcome, and the tests run over
// both: net/http's transport, or, for HTTP/1.1 with a body of ordinary size,
// the direct path (direct.go), which writes and reads on its caller's
// goroutine and needs about half the time.
package delivery
