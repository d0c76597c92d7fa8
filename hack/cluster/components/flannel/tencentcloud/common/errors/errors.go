// Package errors holds the SDK's error type; see package common.
package errors

// TencentCloudSDKError is what the SDK's client returns for a refused request.
type TencentCloudSDKError struct{ Message string }

func (e *TencentCloudSDKError) Error() string { return e.Message }
