package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one line of the table. A row with a step only is that step's title.
type row struct {
	step             string
	what, want, seen string
}

// differs takes a measured time, which follows what was expected of it, for equal.
func (r row) differs() bool {
	return r.step == "" && r.seen != r.want && !strings.HasPrefix(r.seen, r.want+" (")
}

// step starts a numbered step of the walk-through.
func (d *demo) step(title string) {
	if d.err != nil {
		return
	}
	number := 1
	for _, r := range d.rows {
		if r.step != "" {
			number++
		}
	}
	title = fmt.Sprintf("%d. %s", number, title)
	d.heading(title)
	d.rows = append(d.rows, row{step: title})
}

// enter puts rows into the table. The first that differs is the moment to look
// for the cause: later steps change what there is to see.
func (d *demo) enter(rows ...row) {
	if d.err != nil {
		return
	}
	before := d.differences()
	d.rows = append(d.rows, rows...)
	if before == 0 && d.differences() > 0 {
		d.diagnose()
	}
}

// compare enters one fact that is no packet's fate.
func (d *demo) compare(what, want, seen string) {
	d.enter(row{what: what, want: want, seen: seen})
}

func (d *demo) differences() int {
	count := 0
	for _, r := range d.rows {
		if r.differs() {
			count++
		}
	}
	return count
}

func (d *demo) printTable() {
	if len(d.rows) == 0 {
		return
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprint(table, "\nSTEP\tEXPECTED\tSEEN\n")
	for _, r := range d.rows {
		_, _ = fmt.Fprintln(table, r)
	}
	_ = table.Flush()
}

// String separates the columns by tabs.
func (r row) String() string {
	switch {
	case r.step != "":
		return r.step + "\t\t"
	case r.differs():
		return fmt.Sprintf("   %s\t%s\t%s   <- DIFFERS", r.what, r.want, r.seen)
	}
	return fmt.Sprintf("   %s\t%s\t%s", r.what, r.want, r.seen)
}

// diagnose shows what is needed to find out why a step went wrong.
func (d *demo) diagnose() {
	fmt.Print("\nThis went otherwise than expected. For finding out why:\n")
	for _, command := range [][]string{
		{"kubectl", "get", "pods", "-A", "-o", "wide"},
		{"kubectl", "get", "appisolations,networkpolicies", "-A", "-o", "yaml"},
		{"kubectl", "get", "nodeenforcements", "-o", "yaml"},
		{"kubectl", "-n", systemNamespace, "logs", "deployment/moat-operator", "--tail=40"},
		{"kubectl", "-n", systemNamespace, "logs", "-l", "app.kubernetes.io/component=agent", "--prefix", "--tail=15"},
		{"kubectl", "-n", systemNamespace, "get", "events", "--field-selector", "type=Warning"},
		{"exec", "node-1", "--", "sh", "-c", "iptables-save -t mangle | grep MOAT"},
		{"exec", "node-1", "--", "sh", "-c", "iptables-legacy-save -t mangle | grep MOAT"},
		{"exec", "node-1", "--", "ipset", "list"},
	} {
		// A shell of its own: these run though a command failed before.
		s := shell{ctx: d.ctx}
		s.show(command...)
	}
}

func (d *demo) printNext() {
	fmt.Printf(`
Everything went as expected, in %.0f s. The cluster stays up. Try next:
  hack/cluster.sh helm install moat charts/moat -n moat-system --set image.tag=dev --set image.pullPolicy=Never
  hack/cluster.sh kubectl apply -f hack/demo/manifests/appisolation.yaml
  hack/cluster.sh kubectl get appisolations,nodeenforcements
  hack/cluster.sh exec node-1 -- sh -c 'iptables-save -t mangle | grep MOAT'
Remove it with: make demo-down
`, time.Since(d.begun).Seconds())
}
