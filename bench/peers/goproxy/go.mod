module aimux.bench/goproxy

go 1.21
