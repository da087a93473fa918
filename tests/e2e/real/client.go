// paho.mqtt.golang behind the line protocol of client.js.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

var (
	clients = map[string]mqtt.Client{}
	output  sync.Mutex
)

func emit(format string, values ...interface{}) {
	output.Lock()
	defer output.Unlock()
	fmt.Printf(format+"\n", values...)
}

func bit(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func answer(name string, token mqtt.Token) {
	if !token.WaitTimeout(60 * time.Second) {
		emit("err %s timeout", name)
	} else if token.Error() != nil {
		emit("err %s %s", name, token.Error())
	} else {
		emit("ok %s", name)
	}
}

func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + file)
	}
	return &tls.Config{RootCAs: pool}, nil
}

func open(name string, w []string) {
	id, carrier, port, clean, will, ca := w[0], w[1], w[2], w[3] == "1", w[4], w[5]
	scheme := map[string]string{"tcp": "tcp", "tls": "ssl", "ws": "ws", "wss": "wss"}[carrier]
	path := ""
	if strings.HasPrefix(carrier, "ws") {
		path = "/mqtt"
	}
	connects := 0
	o := mqtt.NewClientOptions().AddBroker(scheme + "://127.0.0.1:" + port + path)
	o.SetClientID(id).SetCleanSession(clean).SetAutoReconnect(true).SetMaxReconnectInterval(200 * time.Millisecond)
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		text := hex.EncodeToString(m.Payload())
		if text == "" {
			text = "-"
		}
		emit("msg %s %s %d %d %s", name, m.Topic(), m.Qos(), bit(m.Retained()), text)
	})
	o.SetOnConnectHandler(func(mqtt.Client) { // one at a time
		if connects++; connects > 1 {
			emit("up %s", name)
		}
	})
	if will != "-" {
		o.SetWill(will, "gone", 1, false)
	}
	if ca != "-" {
		config, err := trust(ca)
		if err != nil {
			emit("err %s %s", name, err)
			return
		}
		o.SetTLSConfig(config)
	}
	client := mqtt.NewClient(o)
	clients[name] = client
	token := client.Connect()
	if !token.WaitTimeout(60*time.Second) || token.Error() != nil {
		emit("err %s %v", name, token.Error())
		return
	}
	emit("ok %s -", name) // Debian's version does not say whether there was a session
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		words := strings.Split(lines.Text(), " ")
		verb, name, rest := words[0], words[1], words[2:]
		switch verb {
		case "open":
			open(name, rest)
		case "sub":
			qos, _ := strconv.Atoi(rest[1])
			answer(name, clients[name].Subscribe(rest[0], byte(qos), nil))
		case "pub":
			qos, _ := strconv.Atoi(rest[1])
			payload, _ := hex.DecodeString(strings.TrimPrefix(rest[3], "-"))
			answer(name, clients[name].Publish(rest[0], byte(qos), rest[2] == "1", payload))
		case "close":
			clients[name].Disconnect(100)
			emit("ok %s", name)
		default:
			emit("err %s no command %s", name, verb)
		}
	}
}
