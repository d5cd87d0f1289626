package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"duet/appliance/event"
	"duet/appliance/site"
)

const base = "/api/v1"

type (
	nothing struct{}
	byName  struct {
		Name string `path:"name" doc:"its name"`
	}
	byID struct {
		ID string `path:"id" doc:"id of the task"`
	}
	cancelling struct {
		ID   string `path:"id" doc:"id of the task"`
		Body Reason
	}
	reply[T any] struct{ Body T }
	accepted     struct {
		Location string `header:"Location"`
		Body     Task
	}
	answers struct {
		RawBody []byte `contentType:"application/json" doc:"the site document"`
	}
)

// Acted is the answer to an order: who carried it out, and the object afterwards.
type Acted struct {
	ActedOn string `json:"acted_on"`
	VM      VM     `json:"vm"`
}

// route is one row of the table: operations are registered from it, and tests and the CLI are compared with it.
func route[I, O any](api huma.API, method, path, id, summary string, handle func(context.Context, *I) (*O, error)) {
	op := huma.Operation{OperationID: id, Method: method, Path: base + path, Summary: summary}
	switch id {
	case "setup-answer":
		op.DefaultStatus, op.SkipValidateBody = http.StatusAccepted, true // site.Parse and site.Validate check the document
	case "witness-add", "witness-replace":
		op.DefaultStatus = http.StatusAccepted
	}
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
}

func (s *Server) routes(api huma.API) {
	route(api, http.MethodGet, "/site", "site", "What the site can lose right now, and the facts behind it", s.site)
	route(api, http.MethodGet, "/volumes", "volume-list", "The volumes", s.volumes)
	route(api, http.MethodGet, "/volumes/{name}", "volume-show", "One volume", s.volume)
	route(api, http.MethodGet, "/vms", "vm-list", "The VMs", s.vms)
	route(api, http.MethodGet, "/vms/{name}", "vm-show", "One VM", s.vm)
	route(api, http.MethodPost, "/vms/{name}/start", "vm-start", "Want a VM to run, and start it", s.startVM)
	route(api, http.MethodPost, "/vms/{name}/stop", "vm-stop", "Want a VM not to run, and end it", s.stopVM)
	s.moveRoutes(api)
	s.volumeRoutes(api)
	s.fenceRoutes(api)
	s.witnessRoutes(api)
	s.memberRoutes(api)
	s.databaseRoutes(api)
	route(api, http.MethodGet, "/setup", "setup-show", "How far founding has come", s.setup)
	route(api, http.MethodPost, "/setup/answer", "setup-answer", "Found the site", s.answer)
	route(api, http.MethodGet, "/tasks/{id}", "task-show", "A long action", s.task)
	route(api, http.MethodPost, "/tasks/{id}/cancel", "task-cancel", "End a long action", s.cancelTask)
}

func (s *Server) site(ctx context.Context, _ *nothing) (*reply[Site], error) {
	st, err := s.cfg.Backend.Site(ctx)
	return &reply[Site]{st.filled()}, err
}

func (s *Server) volumes(ctx context.Context, _ *nothing) (*reply[[]Volume], error) {
	st, err := s.cfg.Backend.Site(ctx)
	return &reply[[]Volume]{st.filled().Volumes}, err
}

func (s *Server) volume(ctx context.Context, in *byName) (*reply[Volume], error) {
	st, err := s.cfg.Backend.Site(ctx)
	if err != nil {
		return nil, err
	}
	if st.Setup == "fresh" {
		return nil, event.New(event.NotFounded, "node", st.Node)
	}
	st = st.filled()
	if i := slices.IndexFunc(st.Volumes, func(v Volume) bool { return v.Name == in.Name }); i >= 0 {
		return &reply[Volume]{st.Volumes[i]}, nil
	}
	return nil, event.New(event.UnknownVolume, "volume", in.Name)
}

func (s *Server) vms(ctx context.Context, _ *nothing) (*reply[[]VM], error) {
	st, err := s.cfg.Backend.Site(ctx)
	return &reply[[]VM]{st.filled().VMs}, err
}

func (s *Server) vm(ctx context.Context, in *byName) (*reply[VM], error) {
	vm, err := s.findVM(ctx, in.Name)
	return &reply[VM]{vm}, err
}

func (s *Server) findVM(ctx context.Context, name string) (VM, error) {
	st, err := s.cfg.Backend.Site(ctx)
	if err != nil {
		return VM{}, err
	}
	if st.Setup == "fresh" {
		return VM{}, event.New(event.NotFounded, "node", st.Node)
	}
	st = st.filled()
	if i := slices.IndexFunc(st.VMs, func(v VM) bool { return v.Name == name }); i >= 0 {
		return st.VMs[i], nil
	}
	return VM{}, event.New(event.UnknownVM, "vm", name)
}

func (s *Server) startVM(ctx context.Context, in *byName) (*reply[Acted], error) {
	return s.order(ctx, in.Name, s.cfg.Backend.StartVM)
}

func (s *Server) stopVM(ctx context.Context, in *byName) (*reply[Acted], error) {
	return s.order(ctx, in.Name, s.cfg.Backend.StopVM)
}

func (s *Server) order(ctx context.Context, name string, act func(context.Context, string) error) (*reply[Acted], error) {
	if _, err := s.findVM(ctx, name); err != nil {
		return nil, err
	}
	if err := act(ctx, name); err != nil {
		return nil, err
	}
	vm, err := s.findVM(ctx, name)
	return &reply[Acted]{Acted{ActedOn: s.cfg.Node, VM: vm}}, err
}

func (s *Server) setup(ctx context.Context, _ *nothing) (*reply[Setup], error) {
	st, err := s.cfg.Backend.Setup(ctx)
	if st.Steps == nil {
		st.Steps = []Step{}
	}
	return &reply[Setup]{st}, err
}

// answer refuses wrong answers at once, with every wrong field; only right ones become a task.
func (s *Server) answer(_ context.Context, in *answers) (*accepted, error) {
	doc, err := site.Parse(in.RawBody)
	if err != nil {
		return nil, event.New(event.BadRequest, "detail", err.Error())
	}
	if err := site.Validate(doc, s.cfg.Products...).Err(); err != nil {
		return nil, err
	}
	task, err := s.tasks.start(s.ctx, "setup", s.cfg.SetupTimeout, func(ctx context.Context, report func(Step)) error {
		return s.cfg.Backend.Answer(ctx, doc, report)
	})
	return &accepted{Location: base + "/tasks/" + task.ID, Body: task}, err
}

func (s *Server) task(_ context.Context, in *byID) (*reply[Task], error) {
	t, err := s.tasks.find(in.ID)
	return &reply[Task]{t}, err
}

func (s *Server) cancelTask(_ context.Context, in *cancelling) (*reply[Task], error) {
	reason, err := givenReason(in.Body.Reason)
	if err != nil {
		return nil, err
	}
	t, err := s.tasks.cancel(in.ID, byRoot+": "+reason)
	return &reply[Task]{t}, err
}

// filled makes every list non-nil: a client never has to tell [] from null.
func (s Site) filled() Site {
	s.Losses, s.Members, s.Nodes = orEmpty(s.Losses), orEmpty(s.Members), orEmpty(s.Nodes)
	s.Volumes, s.VMs, s.Faults = orEmpty(s.Volumes), orEmpty(s.VMs), orEmpty(s.Faults)
	if s.Link.Refused == nil || s.Link.Dropped == nil {
		s.Link = Link{Refused: map[string]uint64{}, Dropped: map[string]uint64{}}
	}
	s.Fence = s.Fence.filled()
	s.Volumes, s.VMs = slices.Clone(s.Volumes), slices.Clone(s.VMs)
	for i := range s.Volumes {
		s.Volumes[i].InSync = orEmpty(s.Volumes[i].InSync)
	}
	for i := range s.VMs {
		s.VMs[i].Disks = orEmpty(s.VMs[i].Disks)
	}
	return s
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
