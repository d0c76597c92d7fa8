// Package recipes applies each recipe of config/samples/recipes to a cluster with
// operator and agents, and tries with packets who reaches whom.
package recipes
