package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"duet/appliance/site"
	"duet/build/lab/core"
)

// servicesUpMax is how long daemons may take until they answer after Up.
const servicesUpMax = 30 * time.Second

// setupState is the part of `duet setup show -o json` that the lab needs.
type setupState struct {
	State   string `json:"state"`
	NodeKey string `json:"node_key"`
	Steps   []struct {
		Name   string `json:"name"`
		State  string `json:"state"`
		Detail string `json:"detail"`
	} `json:"steps"`
	Problem *struct {
		Code string `json:"code"`
		What string `json:"what"`
	} `json:"problem"`
}

// Answers fills a document with this lab's hardware: BMCs, outlets, PDU and, with its key, the witness.
func Answers(d site.Document, witnessKey string) site.Document {
	node := func(address string, first int, name string) site.Node {
		return site.Node{
			BMC: &site.BMC{Address: address, User: bmcUser, Password: bmcPassword},
			Outlets: []site.Outlet{
				{Outlet: first, PSU: name + ".1"},
				{Outlet: first + 1, PSU: name + ".2"},
			},
		}
	}
	d.Format = 1
	d.Nodes = site.Nodes{A: node(core.AddressBMCA, 1, A), B: node(core.AddressBMCB, 3, B)}
	d.PDU = &site.PDU{Address: fmt.Sprintf("%s:%d", core.AddressPDU, core.PortPDU), Product: pduProduct}
	d.Witness = &site.Witness{Address: fmt.Sprintf("%s:%d", core.AddressWitness, witnessPort), Key: witnessKey}
	return d
}

// Found enrols the nodes at the witness and founds the site on node a with the name, volumes and VMs of answers, as a
// person would: by `duet setup answer`. It waits until setup is complete, both fence tests included, or ctx ends. say
// is told the product's own progress lines; nil: nobody.
//
// The fence tests switch off both nodes in turn, and so the command on node a ends with its node: then setup is
// followed from outside. A fence test that failed is tried again by the product; only the end of ctx ends Found then.
func (l *Lab) Found(ctx context.Context, answers site.Document, say func(string)) error {
	if say == nil {
		say = func(string) {}
	}
	if answers.Name == "" {
		answers.Name = nameDefault
	}
	keys := map[string]string{}
	for _, node := range []string{A, B} {
		err := l.Until(ctx, servicesUpMax, "duetd of node "+node+" answers", func(ctx context.Context) (string, bool) {
			s, err := l.setup(ctx, node)
			if err != nil {
				return err.Error(), false
			}
			keys[node] = s.NodeKey
			return "no key yet", s.NodeKey != ""
		})
		if err != nil {
			return err
		}
	}
	witnessKey, err := l.enrol(ctx, answers.Name, keys[A], keys[B])
	if err != nil {
		return err
	}
	document, err := json.Marshal(Answers(answers, witnessKey))
	if err != nil {
		return fmt.Errorf("answers: %w", err)
	}
	refused := make(chan error, 1)
	go func() { refused <- l.answer(ctx, document) }()
	return l.followSetup(ctx, refused, say)
}

// enrol makes the witness know the nodes and returns its own key.
func (l *Lab) enrol(ctx context.Context, name, keyA, keyB string) (string, error) {
	if _, err := l.Exec(ctx, Witness, "duet-witness", "enroll", "--data", witnessData, "--name", name, "--key-a", keyA, "--key-b", keyB); err != nil {
		return "", err
	}
	key, err := l.Exec(ctx, Witness, "duet-witness", "key", "--data", witnessData)
	return strings.TrimSpace(string(key)), err
}

func (l *Lab) setup(ctx context.Context, node string) (s setupState, err error) {
	out, err := l.Exec(ctx, node, "duet", "setup", "show", "-o", "json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(out, &s)
}

// answer runs `duet setup answer -` on node a. A refusal of the answers is an error; an end of the command with its
// node is none, and what went wrong later stands in the state of setup.
func (l *Lab) answer(ctx context.Context, document []byte) error {
	in, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	go func() {
		_, _ = inW.Write(document) // a command that does not read says so by its exit code
		inW.Close()
	}()
	_, err = l.ExecWith(ctx, A, in, "duet", "setup", "answer", "-")
	if _, exited := errors.AsType[*ExitError](err); !exited {
		return ctx.Err() // done, or the node went off under the command
	}
	if s, showErr := l.setup(ctx, A); showErr == nil && s.State == "fresh" {
		return err // refused: nothing was founded
	}
	return nil
}

// followSetup waits until setup is complete and tells each step once. Both nodes are asked: the fence tests switch them
// off in turn.
func (l *Lab) followSetup(ctx context.Context, refused <-chan error, say func(string)) error {
	limit := servicesUpMax
	if end, ok := ctx.Deadline(); ok {
		limit = time.Until(end)
	} else {
		limit += 10 * time.Minute // the product's own deadline for setup
	}
	var refusal error
	told := map[string]bool{}
	err := l.Until(ctx, limit, "setup is complete", func(ctx context.Context) (string, bool) {
		select {
		case refusal = <-refused:
		default:
		}
		if refusal != nil {
			return "refused", true
		}
		seen := "no node answers"
		for _, node := range []string{A, B} {
			s, err := l.setup(ctx, node)
			if err != nil {
				continue
			}
			seen = s.progress(node, told, say)
			if s.State == "complete" {
				return seen, true
			}
		}
		return seen, false
	})
	return errors.Join(refusal, err)
}

// progress tells steps that began since the last call, and says in one line where setup stands.
func (s setupState) progress(node string, told map[string]bool, say func(string)) string {
	for _, step := range s.Steps {
		line := "setup on " + node + ": " + step.Name
		if step.Detail != "" {
			line += ": " + step.Detail
		}
		if step.State == "running" && !told[line] {
			told[line] = true
			say(line)
		}
	}
	if s.Problem != nil {
		return s.State + ": " + s.Problem.Code + ": " + s.Problem.What
	}
	return s.State
}
