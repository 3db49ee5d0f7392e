// Command browser serves two pages that show a feed's events as they come:
//
//	POSTROAD_TOKEN=pr_... go run ./examples/browser -api http://127.0.0.1:8080 -feed default
//
// A page's EventSource cannot send an Authorization header, and a token in a URL
// ends up in logs. So / uses an EventSource on /events of this program, which adds
// the token of a reader on the way to Postroad: whoever may open the page may see
// the feed, so put your own sign-in in front of it. /fetch asks for a token instead
// and reads the stream with fetch, which can send headers.
package main

import (
	"embed"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"time"
)

//go:embed eventsource.html fetch.html
var pages embed.FS

func main() {
	api := flag.String("api", "http://127.0.0.1:8080", "the `URL` of Postroad's API")
	feed := flag.String("feed", "default", "the `feed` to show")
	listen := flag.String("listen", "127.0.0.1:3000", "the `address` to listen on")
	flag.Parse()
	if err := run(*api, *feed, *listen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func run(api, feed, listen string) error {
	target, err := url.Parse(api)
	if err != nil {
		return err
	}
	slog.Info("open one of the pages", "event_source", "http://"+listen+"/", "fetch", "http://"+listen+"/fetch")
	server := http.Server{Addr: listen, Handler: handler(target, feed, os.Getenv("POSTROAD_TOKEN")), ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}

func handler(api *url.URL, feed, token string) http.Handler {
	stream := path.Join("/", api.Path, "v1/feeds", feed, "stream")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, pages, "eventsource.html") })
	mux.HandleFunc("GET /fetch", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, pages, "fetch.html") })
	// The query, a filter say, and Last-Event-ID are handed on; each event goes out as
	// it comes.
	mux.Handle("GET /events", forward(api, stream, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }))
	mux.Handle("GET /own-events", forward(api, stream, func(*http.Request) {}))
	return mux
}

func forward(to *url.URL, path string, change func(*http.Request)) http.Handler {
	return &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.URL.Path, p.Out.Host = to.Scheme, to.Host, path, ""
			p.Out.Header.Del("Cookie") // of the page's own sign-in
			change(p.Out)
		},
	}
}
