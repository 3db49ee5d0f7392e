package consumer_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	"postroad/consumer"
)

// ledger stands for a consumer's database. Here a map and a position; there a
// transaction over both.
type ledger struct {
	records  map[string]int64
	position consumer.Position
}

func (l *ledger) LastSequence(context.Context) (consumer.Position, error) { return l.position, nil }

func (l *ledger) apply(_ context.Context, b consumer.Batch) error {
	for _, e := range b.Events {
		l.records[e.ResourceName+"/"+e.ResourceRecordKey] = e.Sequence
		fmt.Printf("%d: %s %s changed\n", e.Sequence, e.ResourceName, e.ResourceRecordKey)
	}
	l.position = b.Position()
	return nil
}

func Example() {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // shown once, when the subscriber was created
	books := &ledger{records: map[string]int64{}}
	handler, err := consumer.New(consumer.Config{Secrets: []string{secret}, Store: books, Handle: books.apply})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()

	// What Postroad sends; the second time as if the first answer was lost.
	const body = `{"@reso.context":"urn:reso:metadata:2.0:resource:entityevent","EntityEventSequence":1101,"ResourceName":"Showing","ResourceRecordKey":"235021"}`
	for range 2 {
		fmt.Println(post(server.URL, secret, "acme_1101", body))
	}
	fmt.Println(post(server.URL, "whsec_"+base64.StdEncoding.EncodeToString([]byte("someone else's secret...")), "acme_1102", body))
	// Output:
	// 1101: Showing 235021 changed
	// 200 OK
	// 200 OK
	// 401 Unauthorized
}

// post signs and sends a body like Postroad.
func post(url, secret, id, body string) string {
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "." + body))
	r, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, url, strings.NewReader(body))
	r.Header.Set("webhook-id", id)
	r.Header.Set("webhook-timestamp", timestamp)
	r.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	r.Header.Set("Postroad-Feed", "default;epoch=1")
	r.Header.Set("Postroad-Previous-Sequence", "0")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	return resp.Status
}
