// Package apiservertest gives tests a real kube-apiserver and etcd with Moat's
// CRDs and roles, so that they meet the real validation, server-side apply and
// RBAC, and not a fake's idea of them. Tests of any folder and of the module in test/
// use it. The product never imports it.
package apiservertest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// assetsVariable names the folder that holds etcd and kube-apiserver.
const assetsVariable = "KUBEBUILDER_ASSETS"

// Server is one API server, shared by the tests of one package. Its zero value is
// ready. Where it can't start, the tests that ask for it fail, and no others; with
// -short they are skipped.
type Server struct {
	// Flags are further flags of the API server, without their dashes.
	Flags map[string]string
	// EtcdFlags are further flags of its etcd, likewise.
	EtcdFlags map[string]string
	// Admission puts the policies of config/admission in force. Then only agents
	// write NodeEnforcements.
	Admission bool

	once, agentRole sync.Once
	env             *envtest.Environment
	err             error
	crashed         map[string]*process // by program, those that were started again
	// admin may do all, operator what the operator's role lets it.
	admin          client.Client
	adminConfig    *rest.Config
	operatorConfig *rest.Config
}

// Run runs the package's tests and then stops the server. It is for TestMain and
// returns the exit code.
//
// The first test that asks for the server starts it. A start before m.Run would
// hide the environment and the manifests that it reads from Go's test cache,
// which then would take yesterday's result for today's CRDs.
func (s *Server) Run(m *testing.M) int {
	defer s.Stop()
	return m.Run()
}

// Admin returns a client that may do all.
func (s *Server) Admin(t testing.TB) client.Client {
	t.Helper()
	s.require(t)
	return s.admin
}

// AdminConfig returns how to connect as a user who may do all.
func (s *Server) AdminConfig(t testing.TB) *rest.Config {
	t.Helper()
	s.require(t)
	return rest.CopyConfig(s.adminConfig)
}

// Operator returns how to connect as the operator's service account, which has
// the rights that config/rbac gives it and no others.
func (s *Server) Operator(t testing.TB) *rest.Config {
	t.Helper()
	s.require(t)
	return rest.CopyConfig(s.operatorConfig)
}

// Namespace makes a namespace for one test and returns its name.
func (s *Server) Namespace(t testing.TB) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	require.NoError(t, s.Admin(t).Create(t.Context(), namespace))
	return namespace.Name
}

func (s *Server) require(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an API server, which -short leaves out")
	}
	s.once.Do(func() { s.err = s.start() })
	require.NoError(t, s.err, "this test needs a real API server")
}

func (s *Server) start() error {
	if os.Getenv(assetsVariable) == "" {
		return fmt.Errorf("%s is not set: run the tests with `make test`, name a folder with etcd and kube-apiserver, or leave these tests out with -short", assetsVariable)
	}
	s.env = &envtest.Environment{
		Scheme:                NewScheme(),
		CRDDirectoryPaths:     []string{configPath("crd", "bases")},
		ErrorIfCRDPathMissing: true,
		// Several may start at once on a busy machine.
		ControlPlaneStartTimeout: 2 * time.Minute,
	}
	if err := s.configure(); err != nil {
		return err
	}
	config, err := s.env.Start()
	if err != nil {
		return fmt.Errorf("starting the API server: %w", err)
	}
	config.QPS = -1 // Tests may ask as fast as they can.
	s.adminConfig = config
	if s.admin, err = client.New(config, client.Options{Scheme: s.env.Scheme}); err != nil {
		return fmt.Errorf("connecting to the API server: %w", err)
	}
	if err := s.addOperator(config); err != nil || !s.Admission {
		return err
	}
	return s.addAdmission()
}

// configure sets the flags and addresses of both programs. By itself envtest lets the
// kernel choose ports, closes them and hopes that they are free when the programs start.
func (s *Server) configure() error {
	var addresses [3]string
	for i := range addresses {
		var err error
		if addresses[i], err = reserve(); err != nil {
			return err
		}
	}
	etcd := &envtest.Etcd{URL: &url.URL{Scheme: "http", Host: addresses[0]}}
	etcd.Configure().Set("listen-peer-urls", "http://"+addresses[1])
	for flag, value := range s.EtcdFlags {
		etcd.Configure().Set(flag, value)
	}
	s.env.ControlPlane.Etcd = etcd
	api := s.env.ControlPlane.GetAPIServer()
	var err error
	if api.Address, api.Port, err = net.SplitHostPort(addresses[2]); err != nil {
		return err
	}
	for flag, value := range s.Flags {
		api.Configure().Set(flag, value)
	}
	return nil
}

func (s *Server) addOperator(config *rest.Config) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: OperatorNamespace}}
	if err := s.admin.Create(context.Background(), namespace); err != nil {
		return fmt.Errorf("creating namespace %s: %w", OperatorNamespace, err)
	}
	if err := s.createAll("rbac/operator_role.yaml", "rbac/operator_release_role.yaml", "rbac/operator_taints_role.yaml",
		"rbac/leader_election_role.yaml", "rbac/role_bindings.yaml", "flowcontrol/agent_reports.yaml"); err != nil {
		return err
	}
	user, err := s.env.AddUser(envtest.User{
		Name:   "system:serviceaccount:" + OperatorNamespace + ":moat-operator",
		Groups: []string{"system:serviceaccounts", "system:authenticated"},
	}, config)
	if err != nil {
		return fmt.Errorf("adding the operator's user: %w", err)
	}
	s.operatorConfig = user.Config()
	return nil
}

// createAll creates every object of some YAML files below config.
func (s *Server) createAll(files ...string) error {
	for _, file := range files {
		text, err := os.ReadFile(configPath(file))
		if err != nil {
			return fmt.Errorf("reading manifests: %w", err)
		}
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
				return fmt.Errorf("parsing %s: %w", file, err)
			}
			if err := s.admin.Create(context.Background(), object); err != nil {
				return fmt.Errorf("creating %s of %s: %w", object.GetKind(), file, err)
			}
		}
	}
	return nil
}

// Stop stops the server, if it was started. Run does so too.
func (s *Server) Stop() {
	if s.env == nil {
		return
	}
	for _, program := range []string{apiServerProgram, etcdProgram} {
		if p := s.crashed[program]; p != nil {
			p.kill()
		}
	}
	if err := s.env.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stopping the API server:", err)
	}
}

// NewScheme returns a scheme with the types of Kubernetes and of Moat.
func NewScheme() *k8sruntime.Scheme {
	scheme := k8sruntime.NewScheme()
	for _, add := range []func(*k8sruntime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err) // The types of two schemes clash: a defect of the build.
		}
	}
	return scheme
}

// configPath returns a path under config, in any folder that the test runs in.
func configPath(elements ...string) string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(append([]string{filepath.Dir(file), "..", "..", "config"}, elements...)...)
}
