package main

import (
	"fmt"
	"strings"
)

// The probes. "db" is the pod test-np, once it is labelled so.
func (d *demo) pingFromClient() probe    { return ping("busybox", "test-np", d.dbIP) }
func (d *demo) pingFromNeighbour() probe { return ping("neighbour", "test-np", d.dbIP) }
func (d *demo) pingFromVisitor() probe   { return ping("myproject/visitor", "test-np", d.dbIP) }
func (d *demo) pingFromOutsider() probe  { return pingFromOutside(outsider, "test-np", d.dbIP) }
func (d *demo) pingFromExcepted() probe  { return pingFromOutside(exceptedOutside, "test-np", d.dbIP) }
func (d *demo) webFromClient() probe     { return get("busybox", "test-np", d.dbIP, 80) }
func (d *demo) webFromNeighbour() probe  { return get("neighbour", "test-np", d.dbIP, 80) }
func (d *demo) pingToClient() probe      { return ping("test-np", "busybox", d.clientIP) }
func (d *demo) toUpstream() probe        { return get("test-np", upstream, upstream, 5978) }
func (d *demo) toOtherPort() probe       { return get("test-np", upstream, upstream, 5979) }
func (d *demo) toOtherHost() probe       { return get("test-np", outsider, outsider, 5978) }

// everythingOpen expects an answer to each probe.
func (d *demo) everythingOpen() []expectation {
	return []expectation{
		d.pingFromClient().answers(),
		d.webFromClient().answers(),
		d.pingFromVisitor().answers(),
		d.pingFromNeighbour().answers(),
		d.webFromNeighbour().answers(),
		d.pingFromOutsider().answers(),
		d.pingFromExcepted().answers(),
		d.toUpstream().answers(),
		d.toOtherPort().answers(),
		d.toOtherHost().answers(),
		d.pingToClient().answers(),
	}
}

// othersAsWritten is what the walk-through's policy says of everyone but busybox.
func (d *demo) othersAsWritten() []expectation {
	return []expectation{
		d.pingFromVisitor().answers(),
		d.pingFromNeighbour().isBlocked(),
		d.webFromNeighbour().answers(),
		d.pingFromOutsider().answers(),
		d.pingFromExcepted().isBlocked(),
	}
}

// egressAsWritten is what the walk-through's policy says of db's own connections.
func (d *demo) egressAsWritten() []expectation {
	return []expectation{
		d.toUpstream().answers(),
		d.toOtherPort().isBlocked(),
		d.toOtherHost().isBlocked(),
		d.pingToClient().isBlocked(),
	}
}

// withNetworkPolicy is the walk-through's first act: a hand-written NetworkPolicy.
func (d *demo) withNetworkPolicy() {
	d.step("No policy: everything is open")
	d.check(d.everythingOpen()...)

	d.step("test-network-policy, and test-np gets its label role=db")
	d.timeChange("busybox", blocked, func() {
		d.show("kubectl", "apply", "-f", manifest("test-network-policy.yaml"))
		d.show("kubectl", "label", "pod", "test-np", "role=db")
	})
	d.check(d.pingFromClient().isBlocked(), d.webFromClient().answers())

	d.step("busybox gets the label that the policy asks for")
	d.timeChange("busybox", answered, func() {
		d.show("kubectl", "label", "pod", "busybox", "role=frontend")
	})
	d.check(d.pingFromClient().answers())

	d.step("The others: another namespace, the same node, outside of the cluster")
	d.check(d.othersAsWritten()...)

	d.step("db itself may open connections to 10.0.0.0/24, TCP 5978, only")
	d.check(d.egressAsWritten()...)

	d.step("The policy is deleted: everything is open again")
	d.timeChange("neighbour", answered, func() {
		d.show("kubectl", "delete", "-f", manifest("test-network-policy.yaml"))
	})
	d.check(d.everythingOpen()...)
}

// withAppIsolation is its second act: the same intent as one AppIsolation.
// Where it waits for Enforced, the packets must obey from that moment on.
func (d *demo) withAppIsolation() {
	d.step("The same as an AppIsolation; busybox has lost its label")
	d.show("kubectl", "label", "pod", "busybox", "role-")
	d.show("kubectl", "apply", "-f", manifest("appisolation.yaml"))
	d.waitEnforced()
	d.check(append([]expectation{d.pingFromClient().isBlocked(), d.webFromClient().answers()}, d.othersAsWritten()...)...)
	d.check(d.egressAsWritten()...)

	d.step("busybox gets the label that the isolation asks for")
	d.timeChange("busybox", answered, func() {
		d.show("kubectl", "label", "pod", "busybox", "role=frontend")
	})
	d.check(d.pingFromClient().answers())

	d.step("The status says where it is enforced")
	d.show("kubectl", "get", "appisolation")
	d.compare("READY of db", "True", d.conditionOfDB("Ready"))
	d.compare("NODES of db", "1/1", d.output("kubectl", "get", "appisolation", "db", "-o", "jsonpath={.status.enforcement.summary}"))
	d.show("kubectl", "get", "networkpolicy")

	d.step("An edit: the rule web goes, so that TCP 80 is for the named clients only")
	d.show("kubectl", "patch", "appisolation", "db", "--type=json", "-p", `[{"op": "remove", "path": "/spec/ingress/1"}]`)
	d.waitEnforced()
	d.check(d.webFromNeighbour().isBlocked(), d.webFromClient().answers(), d.pingFromClient().answers())

	d.step("The isolation is deleted: everything is open again")
	d.timeChange("neighbour", answered, func() {
		d.show("kubectl", "delete", "appisolation", "db")
	})
	d.check(d.everythingOpen()...)
	d.compare("NetworkPolicies left", "none", leftOf(d.output("kubectl", "get", "networkpolicy", "-o", "name")))
}

func (d *demo) waitEnforced() {
	d.show("kubectl", "wait", "--for=condition=Enforced", "appisolation/db", "--timeout=30s")
	d.compare("Enforced of db", "True", d.conditionOfDB("Enforced"))
}

func (d *demo) conditionOfDB(condition string) string {
	path := fmt.Sprintf(`jsonpath={.status.conditions[?(@.type==%q)].status}`, condition)
	return d.output("kubectl", "get", "appisolation", "db", "-o", path)
}

func leftOf(list string) string {
	if list == "" {
		return "none"
	}
	return strings.Join(strings.Fields(list), " ")
}
