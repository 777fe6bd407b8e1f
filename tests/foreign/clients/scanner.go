// Go's bufio.Scanner, with its usual 64 KiB, reads the lines of an inbox and prints each body, until the body "end".
// Arguments: the server's address, the query.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	reply, err := http.Get(os.Args[1] + "/v1/inbox/stream?" + os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewScanner(reply.Body)
	for lines.Scan() {
		var page struct {
			Messages []struct{ Body json.RawMessage }
		}
		if err := json.Unmarshal(lines.Bytes(), &page); err != nil {
			log.Fatal(err)
		}
		for _, message := range page.Messages {
			fmt.Println(string(message.Body))
			if string(message.Body) == `"end"` {
				return
			}
		}
	}
	log.Fatal("the stream ended: ", lines.Err())
}
