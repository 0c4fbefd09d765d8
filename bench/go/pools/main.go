// The same no-op jobs in the Go pools that people use today, as their pages say: `ants` and `pond`. Prints nanoseconds.
package main

import (
	"flag"
	"fmt"
	"sync"
	"time"

	"github.com/alitto/pond/v2"
	"github.com/panjf2000/ants/v2"
)

func main() {
	mode := flag.String("mode", "ants", "ants, pond or bounded (pond with a bounded queue)")
	jobs := flag.Int("jobs", 1_000_000, "how many")
	workers := flag.Int("workers", 100, "how many")
	flag.Parse()
	var done sync.WaitGroup
	job := func() { done.Done() }
	done.Add(*jobs)
	var began time.Time
	switch *mode {
	case "ants":
		pool, err := ants.NewPool(*workers)
		if err != nil {
			panic(err)
		}
		defer pool.Release()
		began = time.Now()
		for number := 0; number < *jobs; number++ {
			if err := pool.Submit(job); err != nil {
				panic(err)
			}
		}
	case "pond", "bounded":
		pool := pond.NewPool(*workers)
		if *mode == "bounded" {
			pool = pond.NewPool(*workers, pond.WithQueueSize(10_000))
		}
		defer pool.StopAndWait()
		began = time.Now()
		for number := 0; number < *jobs; number++ {
			pool.Submit(job)
		}
	default:
		panic("there is no such mode")
	}
	done.Wait()
	fmt.Println(time.Since(began).Nanoseconds())
}
