// A guest on quic-go's WebTransport: registers, resets a stream, is still there, leaves.
//
//	guest URL HASH      prints a line for each step; ends with status 1 at the first that fails
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/quic-go/webtransport-go"
)

const (
	patience = 20 * time.Second
	register = "\x00" + `{"type":"Register","mac":[82,84,0,1,2,3]}`
	beat     = "\x00" + `{"type":"Heartbeat"}`
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url, hash string) error {
	transport := webtransport.Transport{TLSClientConfig: pinned(hash)}
	response, session, err := transport.Dial(ctx, url, nil)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	fmt.Println("status", response.StatusCode)
	if err := ask(ctx, session, register, "Assigned"); err != nil {
		return err
	}
	stream, err := session.OpenUniStream()
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	if _, err := stream.Write([]byte("what nobody reads")); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	stream.CancelWrite(7)
	fmt.Println("reset")
	if err := ask(ctx, session, beat, "HeartbeatAck"); err != nil {
		return err
	}
	// Not waited for: the library ends the connection, mostly before the capsule that says why has left.
	if err := session.CloseWithError(3, "done"); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	fmt.Println("closed")
	return nil
}

// ask sends a control message and waits for an answer of a type, whatever else comes before.
func ask(ctx context.Context, session *webtransport.Session, message, answer string) error {
	if err := session.SendDatagram([]byte(message)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for {
		datagram, err := session.ReceiveDatagram(ctx)
		if err != nil {
			return fmt.Errorf("no %s: %w", answer, err)
		}
		if strings.HasPrefix(string(datagram), "\x00"+`{"type":"`+answer+`"`) {
			fmt.Println(answer)
			return nil
		}
	}
}

func pinned(hash string) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, // in favour of the hash, as in a browser's serverCertificateHashes
		VerifyPeerCertificate: func(chain [][]byte, _ [][]*x509.Certificate) error {
			if sum := sha256.Sum256(chain[0]); hex.EncodeToString(sum[:]) != hash {
				return errors.New("another certificate")
			}
			return nil
		},
	}
}
