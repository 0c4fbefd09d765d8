module cabrank.example/bench/original

go 1.19
