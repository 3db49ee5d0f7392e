package api_test

import (
	"net/http"
	"testing"

	"github.com/coder/websocket"
)

// TestStream_bearerProtocol: a page in a browser can name its token as a subprotocol,
// which is never said back.
func TestStream_bearerProtocol(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	b.publish(one("1")).want(201, nil)
	var made struct{ ID, Token string }
	b.call("POST", "/v1/tokens", `{"role":"reader","feeds":["default"]}`).want(201, &made)
	dial := func(token string) (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(t.Context(), b.url+streamPath+"?after=0", &websocket.DialOptions{
			Subprotocols: []string{"postroad", "bearer." + token}, HTTPHeader: http.Header{"Origin": {"https://app.example.com"}},
		})
	}
	conn, response, err := dial(made.Token) //nolint:bodyclose // the connection is the body
	must(t, err)
	defer func() { _ = conn.CloseNow() }()
	if got := response.Header.Get("Sec-WebSocket-Protocol"); got != "postroad" {
		t.Errorf("agreed on %q", got)
	}
	if i := message(t, conn); i.Sequence != 1 {
		t.Errorf("%s", i.text)
	}
	_, response, err = dial("pr_wrong") //nolint:bodyclose // it was read by Dial
	if err == nil || response == nil || response.StatusCode != 401 {
		t.Errorf("with a wrong token: %v, %v", response, err)
	}
	a := b.call("GET", streamPath, "", "Authorization", "", "Sec-WebSocket-Protocol", "bearer."+made.Token)
	a.refused(401, "unauthorized", "")
}
