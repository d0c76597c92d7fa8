package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLogFormats(t *testing.T) {
	var out bytes.Buffer
	logger, err := newLogger(&out, logOptions{level: "info", format: "json"})
	require.NoError(t, err)
	logger.Info("programmed the node", "node", "node-1", "policies", 3)
	logger.V(1).Info("not at this level")
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line), "one object: %s", out.String())
	require.NotEmpty(t, line["time"])
	delete(line, "time")
	require.Equal(t, map[string]any{"level": "INFO", "msg": "programmed the node", "node": "node-1", "policies": 3.0}, line)

	out.Reset()
	logger, err = newLogger(&out, defaultLog)
	require.NoError(t, err)
	logger.Info("programmed the node", "node", "node-1")
	require.Contains(t, out.String(), `msg="programmed the node" node=node-1`)
}

func TestLogLevels(t *testing.T) {
	var out bytes.Buffer
	for level, logs := range map[string]bool{"info": false, "debug": true} {
		logger, err := newLogger(&out, logOptions{level: level, format: "json"})
		require.NoError(t, err)
		require.Equal(t, logs, logger.GetSink().Enabled(1))
	}
}
