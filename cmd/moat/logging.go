package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
)

// logOptions are the flags of what a command logs. The zero value is no valid one.
type logOptions struct {
	level  string
	format string
}

// defaultLog is what a command logs that has no flags for it.
var defaultLog = logOptions{level: "info", format: "text"}

func (o *logOptions) addFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.level, "log-level", defaultLog.level, "info or debug")
	flags.StringVar(&o.format, "log-format", defaultLog.format, "text (key=value), or json: an object a line")
}

// newLogger returns a logger that writes a line for each message. Its errors name the flag
// and the values that it takes.
func newLogger(out io.Writer, o logOptions) (logr.Logger, error) {
	levels := map[string]slog.Level{"info": slog.LevelInfo, "debug": slog.LevelDebug}
	threshold, known := levels[o.level]
	if !known {
		return logr.Logger{}, fmt.Errorf("--log-level %q: use info or debug", o.level)
	}
	options := &slog.HandlerOptions{Level: threshold}
	switch o.format {
	case "text":
		return logr.FromSlogHandler(slog.NewTextHandler(out, options)), nil
	case "json":
		return logr.FromSlogHandler(slog.NewJSONHandler(out, options)), nil
	}
	return logr.Logger{}, fmt.Errorf("--log-format %q: use text or json", o.format)
}
