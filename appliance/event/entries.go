package event

var catalogue = []Entry{}
