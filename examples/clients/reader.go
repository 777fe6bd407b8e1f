// Reads a user's inbox with long polls: every message once, through restarts of either side. Go 1.19, no packages.
// HALLEY_URL: the client address. TOKEN_URL: your backend's token endpoint. CURSOR_FILE: where the cursor is kept.
package main

import (
	"encoding/json"
	"io"
	"log"
	"math"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"time"
)

func get(url, token string) (status int, retryAfter float64, body []byte) {
	request, _ := http.NewRequest("GET", url, nil)
	request.Header.Set("Authorization", "Bearer "+token)
	reply, err := (&http.Client{Timeout: 45 * time.Second}).Do(request)
	if err != nil {
		return 0, 0, nil
	}
	defer reply.Body.Close()
	body, _ = io.ReadAll(reply.Body) // if it was cut, it is no JSON
	retryAfter, _ = strconv.ParseFloat(reply.Header.Get("Retry-After"), 64)
	return reply.StatusCode, retryAfter, body
}

func main() {
	file, token, cursor, pause := os.Getenv("CURSOR_FILE"), "", "0", 0.5
	if saved, err := os.ReadFile(file); err == nil {
		cursor = string(saved)
	}
	for ; ; time.Sleep(time.Duration(pause * (0.5 + rand.Float64()/2) * float64(time.Second))) {
		if token == "" {
			_, _, body := get(os.Getenv("TOKEN_URL"), "")
			token = string(body)
		}
		status, retryAfter, body := get(os.Getenv("HALLEY_URL")+"/v1/inbox?wait=30&after="+cursor, token)
		var page struct {
			Messages             []json.RawMessage
			Next, Restart, First string
		}
		pause = math.Max(2*retryAfter, math.Min(30, math.Max(0.5, pause*2)))
		if status == 401 {
			token = "" // expired: ask the backend for a fresh one
		} else if (status == 200 || status == 409 || status == 410) && json.Unmarshal(body, &page) == nil {
			for _, message := range page.Messages { // an app stores these and the cursor in one transaction
				os.Stdout.Write(append(message, '\n'))
			}
			cursor, pause = page.Next+page.Restart+page.First, 0 // of 200, 409 and 410, where to go on
			if os.WriteFile(file+".new", []byte(cursor), 0o600) != nil || os.Rename(file+".new", file) != nil {
				log.Fatal("cannot save the cursor in ", file)
			}
		} else if status >= 400 && status < 500 && status != 429 {
			log.Fatal(status, " ", string(body)) // a fault of this program: do not repeat
		}
	}
}
