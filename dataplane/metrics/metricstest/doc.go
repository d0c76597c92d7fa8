// Package metricstest reads metrics as Prometheus would, and checks their names.
package metricstest
