package v1alpha1_test

import (
	"os"
	"testing"

	"github.com/moat-dev/moat/internal/apiservertest"
)

var server apiservertest.Server

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}
