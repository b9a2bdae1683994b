// The plain way to write a reverse proxy in Go: httputil.ReverseProxy, with room for enough idle connections.
// Usage: goproxy PORT UPSTREAM_URL
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = 4096
	transport.DisableCompression = true
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(request *httputil.ProxyRequest) { request.SetURL(upstream) },
		Transport:     transport,
		FlushInterval: -1,
	}
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: proxy, ReadHeaderTimeout: time.Minute}
	log.Fatal(server.ListenAndServe())
}
