// Package v20170312 stands in for the Tencent Cloud VPC client; see package
// common beside it. Every request fails, so that a flanneld which is told to use
// this backend says why it can't.
package v20170312

import "errors"

var errStub = errors.New("this flanneld is built without the Tencent Cloud SDK")

type (
	Client struct{}

	Filter struct {
		Name   *string
		Values []*string
	}

	Route struct {
		DestinationCidrBlock *string
		GatewayType          *string
		GatewayId            *string
		RouteId              *uint64
		RouteType            *string
		Enabled              *bool
	}

	RouteTable struct {
		RouteTableId *string
		RouteSet     []*Route
	}

	DescribeRouteTablesRequest struct{ Filters []*Filter }

	DescribeRouteTablesResponse struct {
		Response *struct{ RouteTableSet []*RouteTable }
	}

	CreateRoutesRequest struct {
		RouteTableId *string
		Routes       []*Route
	}

	DeleteRoutesRequest struct {
		RouteTableId *string
		Routes       []*Route
	}
)

func NewClientWithSecretId(id, key, region string) (*Client, error) { return nil, errStub }

func NewDescribeRouteTablesRequest() *DescribeRouteTablesRequest {
	return &DescribeRouteTablesRequest{}
}

func NewCreateRoutesRequest() *CreateRoutesRequest { return &CreateRoutesRequest{} }

func NewDeleteRoutesRequest() *DeleteRoutesRequest { return &DeleteRoutesRequest{} }

func (*Client) DescribeRouteTables(*DescribeRouteTablesRequest) (*DescribeRouteTablesResponse, error) {
	return nil, errStub
}

func (*Client) CreateRoutes(*CreateRoutesRequest) (any, error) { return nil, errStub }

func (*Client) DeleteRoutes(*DeleteRoutesRequest) (any, error) { return nil, errStub }
