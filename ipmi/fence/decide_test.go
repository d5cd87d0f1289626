package fence

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// transcript plays inputs against the planner and writes down what it does, without the Wakes.
func transcript(t *testing.T, inputs ...Input) string {
	t.Helper()
	var lines []string
	var s State
	for _, in := range inputs {
		var effects []Effect
		s, effects = Step(s, in)
		var does []string
		for _, e := range effects {
			switch e := e.(type) {
			case Wake:
			case Finish:
				does = append(does, fmt.Sprintf("%s: %s (%s)", e.Verdict, e.Kind, e.Why))
			default:
				does = append(does, strings.TrimPrefix(fmt.Sprintf("%T", e), "fence."))
			}
		}
		lines = append(lines, strings.Join(does, " "))
	}
	return strings.Join(lines, "\n")
}

const ms = Second / 1000

// Proves: F-07, F-08, F-10 (rules P1-P6 of hardware.md 4.3, a transcript each).
func TestRules(t *testing.T) {
	const t0 = 100 * Second // times below count from here
	begin := Begin{Now: t0, UseBMC: true, UseOutlets: true}
	bmcOnly := Begin{Now: t0, UseBMC: true}
	bmc := func(sent, now Boottime, a BMCAnswer) Input {
		return BMCReplied{Now: t0 + now, Sent: t0 + sent, Answer: a}
	}
	pdu := func(sent, now Boottime, a PDUAnswer, load ...Load) Input {
		return PDUReplied{Now: t0 + now, Sent: t0 + sent, Answer: a, Load: append(load, LoadUnknown)[0]}
	}
	woke := func(now Boottime) Input { return Woke{t0 + now} }
	for _, test := range []struct {
		name   string
		inputs []Input
		want   string
	}{
		{"P1 off already: two readings, nothing is switched", []Input{
			begin, pdu(0, 2*ms, OutletsOn), bmc(0, 3*ms, BMCSaysOff), woke(250 * ms), bmc(250*ms, 255*ms, BMCSaysOff),
		}, "AskBMC ReadOutlets\n\n\nAskBMC\nconfirmed: BMC says off (read off in successive requests)"},
		{"P1 another system: nothing is believed", []Input{
			begin, bmc(0, 5*ms, BMCStranger), pdu(0, 6*ms, OutletsOut), woke(3 * Second),
		}, "AskBMC ReadOutlets\nunknown: nothing (another system answers at the address of the BMC)\n\n"},
		{"P2 on: down, repeated each second, refused at 5 s", []Input{
			bmcOnly, bmc(0, 5*ms, BMCSaysOn), bmc(5*ms, 10*ms, BMCDone), bmc(10*ms, 15*ms, BMCSaysOn), woke(260 * ms),
			bmc(260*ms, 265*ms, BMCSaysOn), woke(1010 * ms), bmc(1010*ms, 1015*ms, BMCDone), bmc(1015*ms, 1020*ms, BMCSaysOn), woke(5 * Second),
		}, "AskBMC\nDownBMC\nAskBMC\n\nAskBMC\n\nDownBMC\nAskBMC\n\nrefused: BMC says off (the BMC says on)"},
		{"P3 silence: outlets at 2 s", []Input{
			begin, pdu(0, 2*ms, OutletsOn), bmc(0, 2*Second, BMCSilent), pdu(2*Second, 2010*ms, PDUDone),
			pdu(2010*ms, 2020*ms, OutletsOut), woke(2510 * ms), pdu(2510*ms, 2515*ms, OutletsOut), woke(3010 * ms), pdu(3010*ms, 3015*ms, OutletsOut),
		}, "AskBMC ReadOutlets\n\nAskBMC OutletsDown\nReadOutlets\n\nReadOutlets\n\nReadOutlets\nconfirmed: outlets read off (read off in successive requests)"},
		{"P3 rejected: outlets at once", []Input{
			begin, pdu(0, 2*ms, OutletsOn), bmc(0, 5*ms, BMCSaysOn), bmc(5*ms, 9*ms, BMCRejected),
		}, "AskBMC ReadOutlets\n\nDownBMC\nOutletsDown"},
		{"P3 no login: outlets at once", []Input{
			begin, pdu(0, 2*ms, OutletsOn), bmc(0, 5*ms, BMCNoLogin),
		}, "AskBMC ReadOutlets\n\nOutletsDown"},
		{"no login and no outlets: unknown, at once", []Input{
			bmcOnly, bmc(0, 5*ms, BMCNoLogin),
		}, "AskBMC\nunknown: nothing (no answer that can be believed)"},
		{"P3 still on at 5 s: outlets too", []Input{
			begin, pdu(0, 2*ms, OutletsOn), bmc(0, 5*ms, BMCSaysOn), bmc(5*ms, 6*ms, BMCDone), bmc(6*ms, 7*ms, BMCSaysOn), woke(4999 * ms),
			bmc(4999*ms, 5*Second, BMCDone),
		}, "AskBMC ReadOutlets\n\nDownBMC\nAskBMC\n\nDownBMC\nAskBMC OutletsDown"},
		{"P3 a slow BMC is not a silent one: its answer is waited for", []Input{
			begin, pdu(0, 2*ms, OutletsOn), bmc(0, 1300*ms, BMCSaysOn), bmc(1300*ms, 2600*ms, BMCRejected), pdu(2600*ms, 2610*ms, PDUDone),
			pdu(2610*ms, 2620*ms, OutletsOut), woke(3110 * ms), pdu(3110*ms, 3120*ms, OutletsOut), woke(3610 * ms), pdu(3610*ms, 3620*ms, OutletsOut),
			bmc(2600*ms, 3900*ms, BMCSaysOn),
		}, "AskBMC ReadOutlets\n\nDownBMC\nAskBMC OutletsDown\nReadOutlets\n\nReadOutlets\n\nReadOutlets\n\nDownBMC"},
		{"P3 and one that dies with the outlets is waited for once", []Input{
			begin, pdu(0, 2*ms, OutletsOn), bmc(0, 1300*ms, BMCSaysOn), bmc(1300*ms, 2600*ms, BMCRejected), pdu(2600*ms, 2610*ms, PDUDone),
			pdu(2610*ms, 2620*ms, OutletsOut), woke(3110 * ms), pdu(3110*ms, 3120*ms, OutletsOut), woke(3610 * ms), pdu(3610*ms, 3620*ms, OutletsOut),
			bmc(2600*ms, 4600*ms, BMCSilent),
		}, "AskBMC ReadOutlets\n\nDownBMC\nAskBMC OutletsDown\nReadOutlets\n\nReadOutlets\n\nReadOutlets\n\nconfirmed: outlets read off (read off in successive requests)"},
		{"P2 a BMC that needs more than a second is asked between two commands", []Input{
			bmcOnly, bmc(0, 1200*ms, BMCSaysOn), bmc(1200*ms, 2400*ms, BMCDone), bmc(2400*ms, 3600*ms, BMCSaysOff), woke(3800 * ms),
			bmc(3800*ms, 4990*ms, BMCSaysOff),
		}, "AskBMC\nDownBMC\nAskBMC\n\nAskBMC\nconfirmed: BMC says off (read off in successive requests)"},
		{"P1 two slow answers: the second question waits 200 ms behind the first answer", []Input{
			bmcOnly, bmc(0, 300*ms, BMCSaysOff), woke(499 * ms), woke(500 * ms), bmc(500*ms, 800*ms, BMCSaysOff),
		}, "AskBMC\n\n\nAskBMC\nconfirmed: BMC says off (read off in successive requests)"},
		{"P1 a question sent before that is no second one", []Input{
			bmcOnly, bmc(0, 300*ms, BMCSaysOff), bmc(301*ms, 600*ms, BMCSaysOff), woke(800 * ms), bmc(800*ms, 801*ms, BMCSaysOff),
		}, "AskBMC\n\n\nAskBMC\nconfirmed: BMC says off (read off in successive requests)"},
		{"P4 one PSU stays on: refused, and it stays as it is", []Input{
			Begin{Now: t0, UseOutlets: true}, pdu(0, 2*ms, OutletsOn), pdu(2*ms, 9*ms, PDUDone), pdu(9*ms, 12*ms, OutletsMix), woke(10 * Second),
		}, "ReadOutlets\nOutletsDown\nReadOutlets\n\nrefused: outlets read off (an outlet reads on)"},
		{"a BMC that answers has power: the outlets are another node's", []Input{
			begin, pdu(0, 2*ms, OutletsOn), bmc(0, 5*ms, BMCSaysOn), bmc(5*ms, 9*ms, BMCRejected), pdu(9*ms, 20*ms, PDUDone), pdu(20*ms, 22*ms, OutletsOut),
			woke(255 * ms), bmc(255*ms, 260*ms, BMCSaysOn), woke(520 * ms), pdu(520*ms, 525*ms, OutletsOut), bmc(520*ms, 530*ms, BMCSaysOn),
			woke(1020 * ms), bmc(1020*ms, 1025*ms, BMCRejected), pdu(1020*ms, 1030*ms, OutletsOut), woke(10 * Second),
		}, "AskBMC ReadOutlets\n\nDownBMC\nOutletsDown\nReadOutlets\n\nAskBMC\n\nAskBMC ReadOutlets\n\n\nDownBMC ReadOutlets\n\n\nunknown: nothing (the outlets read off and the BMC still answers)"},
		{"P5 the turn is over", []Input{
			Begin{Now: t0, UseBMC: true, UseOutlets: true, Until: t0 + Second}, pdu(0, 2*ms, OutletsOn), woke(Second), bmc(0, 1100*ms, BMCSaysOff),
		}, "AskBMC ReadOutlets\n\nunknown: nothing (no answer that can be believed)\n"},
		{"P6 cancelled", []Input{
			begin, bmc(0, 5*ms, BMCSaysOn), Cancelled{}, bmc(5*ms, 9*ms, BMCDone), woke(Second),
		}, "AskBMC ReadOutlets\nDownBMC\nunknown: nothing (cancelled; what was sent may still hit)\n\n"},
		{"one silence between two off is not successive", []Input{
			bmcOnly, bmc(0, 5*ms, BMCSaysOff), woke(250 * ms), bmc(250*ms, 300*ms, BMCSilent), woke(500 * ms), bmc(500*ms, 505*ms, BMCSaysOff), woke(5 * Second),
		}, "AskBMC\n\nAskBMC\n\nAskBMC\n\nunknown: nothing (no answer that can be believed)"},
		{"an outlet that comes back is switched again and counts anew", []Input{
			Begin{Now: t0, UseOutlets: true},
			pdu(0, 2*ms, OutletsOut), woke(500 * ms), pdu(500*ms, 502*ms, OutletsMix),
			pdu(502*ms, 510*ms, PDUDone), pdu(510*ms, 515*ms, OutletsOut), woke(1010 * ms), pdu(1010*ms, 1015*ms, OutletsOut), woke(1510 * ms),
			pdu(1510*ms, 1515*ms, OutletsOut),
		}, "ReadOutlets\n\nReadOutlets\nOutletsDown\nReadOutlets\n\nReadOutlets\n\nReadOutlets\nconfirmed: outlets read off (read off in successive requests)"},
		{"R21b looking: on is said at once, nothing is switched", []Input{
			Begin{Now: t0, UseBMC: true, UseOutlets: true, Means: Looking}, pdu(0, 2*ms, OutletsOn), bmc(0, 5*ms, BMCSaysOn),
		}, "AskBMC ReadOutlets\n\nrefused: BMC says off (it is on, and it is not this node's turn to switch)"},
		{"R21b looking: off is confirmed without a turn", []Input{
			Begin{Now: t0, UseBMC: true, Means: Looking}, bmc(0, 5*ms, BMCSaysOff), woke(250 * ms), bmc(250*ms, 255*ms, BMCSaysOff),
		}, "AskBMC\n\nAskBMC\nconfirmed: BMC says off (read off in successive requests)"},
		{"R21b looking: silence ends after 2 s and switches nothing", []Input{
			Begin{Now: t0, UseBMC: true, UseOutlets: true, Means: Looking}, pdu(0, 2*ms, OutletsOn), woke(2 * Second),
		}, "AskBMC ReadOutlets\n\nunknown: nothing (no answer that can be believed)"},
		{"R21b by BMC: the outlets are read and never switched", []Input{
			Begin{Now: t0, UseBMC: true, UseOutlets: true, Means: ByBMC, Until: t0 + 6*Second},
			pdu(0, 2*ms, OutletsOn), bmc(0, 2*Second, BMCSilent),
			bmc(2*Second, 4*Second, BMCSilent), woke(5 * Second),
		}, "AskBMC ReadOutlets\n\nAskBMC\nAskBMC\nunknown: nothing (no answer that can be believed)"},
		{"R21b by BMC: outlets that are off already count", []Input{
			Begin{Now: t0, UseBMC: true, UseOutlets: true, Means: ByBMC, Until: t0 + 6*Second},
			pdu(0, 2*ms, OutletsOut), woke(500 * ms),
			pdu(500*ms, 502*ms, OutletsOut), woke(1000 * ms), pdu(1000*ms, 1005*ms, OutletsOut),
		}, "AskBMC ReadOutlets\n\nReadOutlets\n\nReadOutlets\nconfirmed: outlets read off (read off in successive requests)"},
		{"4.1 contradiction: it says off and draws as a running node; the meter is asked again", []Input{
			Begin{Now: t0, UseBMC: true, UseOutlets: true, Means: ByBMC},
			pdu(0, 2*ms, OutletsOn, LoadRuns), bmc(0, 3*ms, BMCSaysOff),
			woke(250 * ms), bmc(250*ms, 255*ms, BMCSaysOff), woke(500 * ms), pdu(500*ms, 505*ms, OutletsOn, LoadRuns), woke(3500 * ms),
			pdu(3500*ms, 3505*ms, OutletsOn, LoadRuns), woke(10 * Second),
		}, "AskBMC ReadOutlets\n\n\nAskBMC\n\nAskBMC ReadOutlets\n\nReadOutlets\n\nunknown: nothing (the BMC says off and the node draws as a running one)"},
		{"4.1 no contradiction: the meter was late", []Input{
			Begin{Now: t0, UseBMC: true, UseOutlets: true},
			pdu(0, 2*ms, OutletsOn, LoadRuns), bmc(0, 3*ms, BMCSaysOff),
			woke(250 * ms), bmc(250*ms, 255*ms, BMCSaysOff), woke(500 * ms), pdu(500*ms, 505*ms, OutletsOn, LoadDraws),
		}, "AskBMC ReadOutlets\n\n\nAskBMC\n\nAskBMC ReadOutlets\nconfirmed: BMC says off (read off in successive requests)"},
		{"P9 a PDU that falls silent takes nothing back", []Input{
			Begin{Now: t0, UseBMC: true, UseOutlets: true},
			pdu(0, 2*ms, OutletsOn, LoadRuns), bmc(0, 3*ms, BMCSaysOff),
			woke(250 * ms), bmc(250*ms, 255*ms, BMCSaysOff), woke(500 * ms), pdu(500*ms, 2500*ms, PDUSilent),
		}, "AskBMC ReadOutlets\n\n\nAskBMC\n\nAskBMC ReadOutlets\nconfirmed: BMC says off (read off in successive requests)"},
		{"LoadGone: off and no power, twice", []Input{
			Begin{Now: t0, UseOutlets: true},
			pdu(0, 2*ms, OutletsOut, LoadNone), woke(500 * ms), pdu(500*ms, 502*ms, OutletsOut, LoadNone),
			woke(1000 * ms), pdu(1000*ms, 1005*ms, OutletsOut, LoadNone),
		}, "ReadOutlets\n\nReadOutlets\n\nReadOutlets\nconfirmed: no power flows (read off in successive requests)"},
		{"LoadGone refused: they read off and power flows", []Input{
			Begin{Now: t0, UseOutlets: true},
			pdu(0, 2*ms, OutletsOut, LoadDraws), woke(500 * ms), pdu(500*ms, 502*ms, OutletsOut, LoadDraws),
			woke(1000 * ms), pdu(1000*ms, 1005*ms, OutletsOut, LoadDraws), woke(10 * Second),
		}, "ReadOutlets\n\nReadOutlets\n\nReadOutlets\n\nrefused: no power flows (the outlets read off and power flows)"},
		{"a relay that cannot be told from another is no evidence", []Input{
			Begin{Now: t0, UseOutlets: true, RelayOnly: true},
			pdu(0, 2*ms, OutletsOn), pdu(2*ms, 9*ms, PDUDone), pdu(9*ms, 12*ms, OutletsOut),
			woke(509 * ms), pdu(509*ms, 511*ms, OutletsOut), woke(1009 * ms), pdu(1009*ms, 1011*ms, OutletsOut),
		}, "ReadOutlets\nOutletsDown\nReadOutlets\n\nReadOutlets\n\nReadOutlets\nunknown: nothing (the relays say off, and nothing shows that they are this site's)"},
		{"strict: the BMC alone is not enough", []Input{
			Begin{Now: t0, UseBMC: true, UseOutlets: true, Strict: true},
			pdu(0, 2*ms, OutletsOn), bmc(0, 3*ms, BMCSaysOff), woke(250 * ms),
			bmc(250*ms, 255*ms, BMCSaysOff), pdu(255*ms, 260*ms, PDUDone), pdu(260*ms, 262*ms, OutletsOut), bmc(500*ms, 2500*ms, BMCSilent),
			pdu(760*ms, 2501*ms, OutletsOut), pdu(2501*ms, 2600*ms, OutletsOut),
		}, "AskBMC ReadOutlets\n\n\nAskBMC\nOutletsDown\nReadOutlets\n\nAskBMC ReadOutlets\nReadOutlets\nconfirmed: BMC says off (read off in successive requests)"},
		{"no means", []Input{Begin{}}, "unknown: nothing (no path may be used)"},
		{"before the beginning", []Input{Woke{}, bmc(0, 1, BMCSaysOff), begin}, "\n\nAskBMC ReadOutlets"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := transcript(t, test.inputs...); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// room is a small world of its own clock: a node, its BMC and its outlets, with faults that hide and delay, and none
// that lies.
type room struct {
	rng                      *rand.Rand
	now                      Boottime
	bmcOn, acOn              bool // the node by its BMC; both outlets
	relays                   [2]bool
	feeds                    bool // the outlets are really this node's
	bmcOffIgnored, bmcNo     bool
	bmcRejects               bool    // it does not take the command
	bmcSilent, pduSilent     float64 // chance of each answer to be lost
	stuck                    [2]bool
	welded                   bool // its relays read as commanded and feed on
	metered                  bool
	offLate                  Boottime
	bmcDelay                 Boottime // of its slowest answer
	events                   []event
	lostAC                   Boottime // when both relays went off; zero: they did not
	bmcInFlight, pduInFlight int
}

type event struct {
	at Boottime
	do func() Input // nil result: a happening of the world
}

func newRoom(seed uint64) *room {
	rng := rand.New(rand.NewPCG(seed, 1))
	chance := func(p float64) bool { return rng.Float64() < p }
	w := &room{rng: rng, now: Second, bmcOn: chance(0.8), acOn: chance(0.7), relays: [2]bool{chance(0.9), chance(0.9)}, feeds: chance(0.85)}
	w.bmcOffIgnored, w.bmcNo = chance(0.2), chance(0.1)
	w.bmcSilent, w.pduSilent = []float64{0, 0.3, 1}[rng.IntN(3)], []float64{0, 0.3, 1}[rng.IntN(3)]
	w.stuck = [2]bool{chance(0.1), chance(0.1)}
	w.metered = chance(0.5)
	w.welded = w.metered && chance(0.15) // without a meter nothing could find that out
	w.offLate = Boottime(rng.Int64N(int64(3 * Second)))
	w.bmcRejects, w.bmcDelay = chance(0.15), []Boottime{40 * ms, 40 * ms, 1800 * ms}[rng.IntN(3)]
	if w.relays == [2]bool{} {
		w.lostAC = Second - holdUp
	}
	if chance(0.3) { // somebody presses an outlet's button at the PDU; not during a request, which would make "when" a matter of opinion
		w.later(Boottime(rng.Int64N(int64(6*Second))), func() Input {
			if w.pduInFlight == 0 && w.bmcInFlight == 0 {
				w.relays[0], w.lostAC = true, 0
			}
			return nil
		})
	}
	return w
}

// hasPower says whether the node's power supplies deliver: capacitors hold up for less than holdUp.
func (w *room) hasPower(at Boottime) bool {
	if !w.acOn {
		return false // its cords were pulled long ago
	}
	return !w.feeds || w.welded || w.relays[0] || w.relays[1] || at < w.lostAC+holdUp-100*ms
}

func (w *room) runs(at Boottime) bool { return w.bmcOn && w.hasPower(at) }

func (w *room) later(d Boottime, do func() Input) { w.events = append(w.events, event{w.now + d, do}) }

func (w *room) reply() Boottime { return Boottime(w.rng.Int64N(int64(40 * ms))) }

func (w *room) bmc(down bool) {
	w.bmcInFlight++
	sent := w.now
	answer, delay := BMCSilent, 2*Second
	if w.hasPower(w.now) && w.rng.Float64() >= w.bmcSilent {
		delay = w.bmcDelay/2 + Boottime(w.rng.Int64N(int64(w.bmcDelay/2)))
		switch {
		case w.bmcNo:
			answer = BMCNoLogin
		case down && w.bmcRejects:
			answer = BMCRejected
		case down:
			answer = BMCDone
			if !w.bmcOffIgnored {
				w.later(w.offLate, func() Input { w.bmcOn = false; return nil })
			}
		case w.bmcOn:
			answer = BMCSaysOn
		default:
			answer = BMCSaysOff
		}
	}
	w.later(delay, func() Input { w.bmcInFlight--; return BMCReplied{w.now, sent, answer} })
}

func (w *room) pdu(down bool) {
	w.pduInFlight++
	sent := w.now
	lost := w.rng.Float64() < w.pduSilent
	if down && (!lost || w.rng.IntN(2) == 0) { // an unanswered command may have been carried out
		for i := range w.relays {
			w.relays[i] = w.relays[i] && w.stuck[i]
		}
		if !w.relays[0] && !w.relays[1] && w.lostAC == 0 {
			w.lostAC = w.now
		}
	}
	answer, delay, load := PDUSilent, 2*Second, LoadUnknown
	if !lost {
		delay = w.reply()
		if w.metered && !down {
			load = w.load()
		}
		switch {
		case down:
			answer = PDUDone
		case w.relays == [2]bool{true, true}:
			answer = OutletsOn
		case w.relays == [2]bool{}:
			answer = OutletsOut
		default:
			answer = OutletsMix
		}
	}
	w.later(delay, func() Input { w.pduInFlight--; return PDUReplied{w.now, sent, answer, load} })
}

// load is what truthful meters of these outlets say.
func (w *room) load() Load {
	switch {
	case !w.feeds || !w.hasPower(w.now):
		return LoadNone
	case w.bmcOn:
		return LoadRuns
	default:
		return LoadDraws
	}
}

// next takes the earliest event.
func (w *room) next() event {
	first := 0
	for i, e := range w.events {
		if e.at < w.events[first].at {
			first = i
		}
	}
	e := w.events[first]
	w.events = append(w.events[:first], w.events[first+1:]...)
	return e
}

// Confirmed means off: in rooms with every mixture of faults that hide or delay, but do not lie, with wrong outlets
// too. Every run ends in time, and asks one thing of one device at a time.
func TestConfirmedMeansOff(t *testing.T) {
	verdicts := map[string]int{}
	for seed := range uint64(20_000) {
		w := newRoom(seed)
		var s State
		began := Begin{Now: w.now, UseBMC: w.rng.IntN(8) > 0, UseOutlets: w.rng.IntN(4) > 0, Strict: w.rng.IntN(6) == 0}
		if w.rng.IntN(2) == 0 {
			began.Means = Means(w.rng.IntN(3))
			began.Until = w.now + Boottime(w.rng.Int64N(int64(12*Second)))
		}
		var in Input = began
		wake := never
		for steps := 0; ; steps++ {
			var effects []Effect
			s, effects = Step(s, in)
			over := false
			for _, e := range effects {
				switch e := e.(type) {
				case AskBMC:
					w.bmc(false)
				case DownBMC:
					if began.Means == Looking || began.Until != 0 && w.now >= began.Until {
						t.Fatalf("seed %d: the BMC is switched without leave", seed)
					}
					w.bmc(true)
				case ReadOutlets:
					w.pdu(false)
				case OutletsDown:
					if !began.UseOutlets || began.Means != Everything || began.Until != 0 && w.now >= began.Until {
						t.Fatalf("seed %d: outlets without leave", seed)
					}
					w.pdu(true)
				case Wake:
					wake = e.At
				case Finish:
					over = true
					verdicts[e.Verdict.String()+" "+e.Kind.String()]++
					if (e.Verdict == Confirmed) != Allow(e.Seen, began.Strict).StartResources {
						t.Fatalf("seed %d: verdict %s of %+v", seed, e.Verdict, e.Seen)
					}
					if e.Verdict == Confirmed && w.runs(w.now) && (w.feeds || (began.UseBMC && w.bmcSilent == 0 && !w.bmcNo)) {
						t.Fatalf("seed %d: %s, %s, and the node runs: %+v", seed, e.Verdict, e.Kind, w)
					}
				}
			}
			if w.bmcInFlight > 1 || w.pduInFlight > 1 {
				t.Fatalf("seed %d: %d requests to the BMC, %d to the PDU at once", seed, w.bmcInFlight, w.pduInFlight)
			}
			if over {
				break
			}
			if w.now > Second+runDeadline || steps > 1000 {
				t.Fatalf("seed %d: no end at %d after %d steps", seed, w.now, steps)
			}
			in = nil
			for in == nil {
				if len(w.events) == 0 || w.earliest() > wake {
					w.now = max(w.now, wake)
					in = Woke{w.now}
					wake = never
				} else {
					e := w.next()
					w.now = e.at
					in = e.do()
				}
			}
		}
	}
	t.Log(verdicts)
	for _, kind := range []string{"confirmed BMC says off", "confirmed outlets read off", "refused BMC says off", "refused outlets read off", "unknown nothing"} {
		if verdicts[kind] == 0 {
			t.Errorf("no room ended with %q", kind)
		}
	}
}

func (w *room) earliest() Boottime {
	at := never
	for _, e := range w.events {
		at = min(at, e.at)
	}
	return at
}

func TestBackoff(t *testing.T) {
	for runs, want := range []Boottime{5, 5, 10, 20, 30, 30, 30} {
		if got := Backoff(runs); got != want*Second {
			t.Errorf("after %d runs %d s", runs, got/Second)
		}
	}
}
