// nhooyr.io/websocket (today coder/websocket), with its usual 32 KiB a frame, reads an inbox and prints each body, until the
// body "end". Arguments: the server's address, the query.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"

	"nhooyr.io/websocket"
)

func main() {
	url := strings.Replace(os.Args[1], "http", "ws", 1) + "/v1/inbox/ws?" + os.Args[2]
	socket, _, err := websocket.Dial(context.Background(), url, nil)
	if err != nil {
		log.Fatal(err)
	}
	for {
		_, frame, err := socket.Read(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		var page struct {
			Messages []struct{ Body json.RawMessage }
		}
		if err := json.Unmarshal(frame, &page); err != nil {
			log.Fatal(err)
		}
		for _, message := range page.Messages {
			fmt.Println(string(message.Body))
			if string(message.Body) == `"end"` {
				return
			}
		}
	}
}
