// The grpc-gateway of Auth's contract: JSON over HTTP in, gRPC out, without TLS.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	auth "benchmarks/gen/amarre/auth/v1"
)

func main() {
	listen, target := os.Args[1], os.Args[2]
	mux := runtime.NewServeMux()
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	options := []grpc.DialOption{plain}
	err := auth.RegisterAuthServiceHandlerFromEndpoint(context.Background(), mux, target, options)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(listen, mux))
}
