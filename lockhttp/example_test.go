package lockhttp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/cloudtrust/go-jobs/lock"
	"github.com/cloudtrust/go-jobs/lock/lockhttp"
)

func Example() {
	var events lockhttp.Events
	// A service has lock.NewWith(db, …).
	l := lock.NewMemory(lock.Options{Observer: events.Observe})
	onlyOperators := func(r *http.Request, a lockhttp.Action) error {
		user, password, _ := r.BasicAuth()
		if a.Kind == lockhttp.Look || user == "ops" && password == "secret" {
			return nil
		}
		return errors.New("only operators change anything here")
	}
	mux := http.NewServeMux()
	mux.Handle("/debug/locks/", lockhttp.New(l, lockhttp.Options{
		Service: "shop", Database: "orders at pg-1", Events: &events, Authorize: onlyOperators,
	}))
	server := httptest.NewServer(mux)
	defer server.Close()

	if err := l.Lock("shop", "instance-1", "backup", "run-1", time.Hour); err != nil {
		fmt.Println(err)
		return
	}
	// The page is for a browser; a script takes the JSON.
	answer, err := http.Get(server.URL + "/debug/locks/?format=json&state=held")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer answer.Body.Close()
	var state lockhttp.State
	if err := json.NewDecoder(answer.Body).Decode(&state); err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range state.Locks {
		fmt.Println(l.Job, l.States, l.Holder.ComponentID, l.TTL)
	}

	refused, err := http.Post(server.URL+"/debug/locks/", "application/json",
		strings.NewReader(`{"action":"disable","component":"shop","job":"backup"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer refused.Body.Close()
	body, _ := io.ReadAll(refused.Body)
	fmt.Printf("%d %s", refused.StatusCode, body)
	// Output:
	// backup [held] instance-1 3600
	// 403 {"error":"only operators change anything here"}
}
