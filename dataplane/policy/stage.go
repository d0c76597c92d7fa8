package policy

// action is what a rule says of a flow that it matches.
type action uint8

// The actions.
const (
	// accept lets the flow pass. A rule of a NetworkPolicy always says so.
	accept action = iota

	// deny drops the flow.
	deny

	// pass leaves the flow to the next stage.
	pass
)

// stage is policies that are asked together. The first rule that matches a flow decides. Where
// no rule matches, last does.
//
// All NetworkPolicies that isolate a pod are one stage. Their rules all accept, so the order of
// policies and rules changes no decision, and compile sorts the rules by what they cost. A tier
// of cluster-wide policies is a stage before or behind that one. Its rules have different
// actions, and their order counts.
type stage struct {
	policies []*Policy
	last     action
}

// networkPolicies is the stage of the policies that isolate a pod: what no rule accepts is
// denied.
func networkPolicies(isolating []*Policy) stage {
	return stage{policies: isolating, last: deny}
}

// answer is what stages say of a flow.
type answer struct {
	action action

	// by is the policy whose rule decided, and rule the index of the rule in its direction.
	// by is nil where no rule matched.
	by   *Policy
	rule int
}

// question is a flow as the rules of one direction see it.
type question struct {
	in          Lookup
	direction   Direction
	flow        Flow
	other       end
	destination *Pod // whose ports count, nil for none
}

// ask asks stages in their order until one doesn't pass. Where all pass, so does the answer.
func (q *question) ask(stages ...stage) answer {
	for i := range stages {
		if a := stages[i].answer(q); a.action != pass {
			return a
		}
	}
	return answer{action: pass}
}

func (s *stage) answer(q *question) answer {
	for _, p := range s.policies {
		rules := p.Rules[q.direction]
		for i := range rules {
			if rules[i].matches(q) {
				return answer{rules[i].action, p, i}
			}
		}
	}
	return answer{action: s.last}
}
