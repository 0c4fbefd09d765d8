// The pattern that cabrank grows out of, without HTTP: no-op jobs through JobQueue, dispatch and Workers ("original"), and the same
// jobs through one bounded channel that the workers range over ("range"). Prints nanoseconds.
package main

import (
	"flag"
	"fmt"
	"sync"
	"time"
)

// Job is one call to make.
type Job struct{ number int }

// JobQueue takes all jobs.
var JobQueue = make(chan Job, 10_000)

func original(jobs, workers int, done *sync.WaitGroup) {
	pool := make(chan chan Job, workers)
	for i := 0; i < workers; i++ {
		go func() {
			channel := make(chan Job)
			quit := make(chan bool)
			for {
				pool <- channel
				select {
				case <-channel:
					done.Done()
				case <-quit:
					return
				}
			}
		}()
	}
	go func() {
		for job := range JobQueue {
			go func(job Job) {
				channel := <-pool
				channel <- job
			}(job)
		}
	}()
	for number := 0; number < jobs; number++ {
		JobQueue <- Job{number}
	}
}

func ranged(jobs, workers int, done *sync.WaitGroup) {
	for i := 0; i < workers; i++ {
		go func() {
			for range JobQueue {
				done.Done()
			}
		}()
	}
	for number := 0; number < jobs; number++ {
		JobQueue <- Job{number}
	}
}

func main() {
	mode := flag.String("mode", "original", "original or range")
	jobs := flag.Int("jobs", 1_000_000, "how many")
	workers := flag.Int("workers", 100, "how many")
	flag.Parse()
	var done sync.WaitGroup
	done.Add(*jobs)
	began := time.Now()
	if *mode == "original" {
		original(*jobs, *workers, &done)
	} else {
		ranged(*jobs, *workers, &done)
	}
	done.Wait()
	fmt.Println(time.Since(began).Nanoseconds())
}
