// What a gateway in Go does at the least: httputil.ReverseProxy behind users' tokens, which it swaps for the account's.
// Usage: goproxy PORT UPSTREAM_URL TOKENS_FILE CREDENTIAL — the file has a SHA-256 of a user's token in each line.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	listed, err := os.ReadFile(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	users := map[[sha256.Size]byte]bool{}
	for _, line := range strings.Fields(string(listed)) {
		var digest [sha256.Size]byte
		if _, err := hex.Decode(digest[:], []byte(line)); err != nil {
			log.Fatal(err)
		}
		users[digest] = true
	}
	credential := "Bearer " + os.Args[4]
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = 4096
	transport.DisableCompression = true
	proxy := &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(upstream)
			request.Out.Header.Set("Authorization", credential)
		},
		Transport:     transport,
		FlushInterval: -1,
	}
	handler := http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		token, found := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
		if !found || !users[sha256.Sum256([]byte(token))] {
			http.Error(answer, "unknown token", http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(answer, request)
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: handler, ReadHeaderTimeout: time.Minute}
	log.Fatal(server.ListenAndServe())
}
