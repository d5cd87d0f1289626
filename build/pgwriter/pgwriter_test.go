package pgwriter

import (
	"strings"
	"testing"
	"time"
)

// The judge sees what is planted, and nothing else.
func TestJudge(t *testing.T) {
	log := `{"w":0,"n":1,"start_us":100,"end_us":200,"state":"acked","tl":1}
{"w":1,"n":1,"start_us":150,"end_us":900,"state":"unknown"}
{"w":0,"n":2,"start_us":300,"end_us":400,"state":"failed"}
{"w":0,"n":3,"start_us":5000,"end_us":5200,"state":"acked","tl":2}
{"w":1,"n":2,"start_us":52`
	ops, err := Read(strings.NewReader(log))
	if err != nil || len(ops) != 4 {
		t.Fatal(len(ops), err)
	}
	good := Judge(ops, []Row{{0, 1}, {0, 3}})
	if good.Acked != 2 || good.Failed != 1 || good.Unknown != 1 || good.Lost != nil || good.Twice != nil || good.TwoPrimaries != "" || good.Longest != 5*time.Millisecond {
		t.Errorf("%+v", good)
	}
	if v := Judge(ops, []Row{{0, 3}, {0, 3}}); len(v.Lost) != 1 || v.Lost[0] != (Row{0, 1}) || len(v.Twice) != 1 {
		t.Errorf("a row that is gone and one that is there twice: %+v", v)
	}
	if v := Judge(ops, []Row{{0, 1}, {0, 3}, {1, 1}}); v.Lost != nil {
		t.Errorf("an unknown row that is there is no fault: %+v", v)
	}
	late := append(ops, Op{Writer: 0, N: 4, Start: 6000, End: 6100, State: Acked, Timeline: 1})
	if v := Judge(late, []Row{{0, 1}, {0, 3}, {0, 4}}); v.TwoPrimaries == "" {
		t.Errorf("an old timeline that answers late: %+v", v)
	}
}
