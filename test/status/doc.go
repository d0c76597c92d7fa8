// Package status tries, with an operator and agents as they are shipped, what the
// status of an AppIsolation says and how soon.
package status
