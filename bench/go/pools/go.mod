module cabrank.example/bench/pools

go 1.20

require (
	github.com/alitto/pond/v2 v2.7.0
	github.com/panjf2000/ants/v2 v2.11.4
)

require golang.org/x/sync v0.11.0 // indirect
