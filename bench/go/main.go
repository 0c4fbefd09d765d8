// The pattern that cabrank grows out of, as a program: a JobQueue, a Dispatcher that starts a goroutine for each job,
// and Workers that put their own job channel into the WorkerPool. It keeps the shape of the original, with the flaws
// that DESIGN names, because it is the yardstick: nothing here may be made faster or safer.
//
// The work of a job is left out (a no-op), so the figures are those of taking jobs on and handing them to workers. With -done
// a job takes 1 ms and writes its payload's body into that file, a line each, so that kills can be told apart from ends.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"
)

const bodyLimit = 1 << 20 // bytes; the same as cabrank's default for one request body

// Payload is what one job is about.
type Payload struct {
	Device string `json:"device"`
	Body   string `json:"body"`
}

// Document is the body of one request: a collection of payloads.
type Document struct {
	Version string    `json:"version"`
	Token   string    `json:"token"`
	Data    []Payload `json:"data"`
}

// Job is one call to make.
type Job struct {
	Payload Payload
}

// JobQueue takes the jobs of all requests.
var JobQueue chan Job

// done is where a job writes what it did; nil if it does nothing.
var done *os.File

// Worker runs the jobs that arrive on its own channel, one at a time.
type Worker struct {
	WorkerPool chan chan Job
	JobChannel chan Job
	quit       chan bool
}

// NewWorker makes a worker that will stand in the pool when it is idle.
func NewWorker(workerPool chan chan Job) Worker {
	return Worker{WorkerPool: workerPool, JobChannel: make(chan Job), quit: make(chan bool)}
}

// Start lets the worker stand in the pool, run what it is given, and stand there again.
func (w Worker) Start() {
	go func() {
		for {
			w.WorkerPool <- w.JobChannel
			select {
			case job := <-w.JobChannel:
				if done != nil {
					work(job)
				}
			case <-w.quit:
				return
			}
		}
	}()
}

func work(job Job) {
	time.Sleep(time.Millisecond)
	if _, err := done.WriteString(job.Payload.Body + "\n"); err != nil {
		log.Fatal(err)
	}
}

// Dispatcher hands each job to the next idle worker.
type Dispatcher struct {
	WorkerPool chan chan Job
	maxWorkers int
}

// NewDispatcher makes a dispatcher with room for all its workers in the pool.
func NewDispatcher(maxWorkers int) *Dispatcher {
	return &Dispatcher{WorkerPool: make(chan chan Job, maxWorkers), maxWorkers: maxWorkers}
}

// Run starts the workers and the dispatching.
func (d *Dispatcher) Run() {
	for i := 0; i < d.maxWorkers; i++ {
		NewWorker(d.WorkerPool).Start()
	}
	go d.dispatch()
}

func (d *Dispatcher) dispatch() {
	for job := range JobQueue {
		// A goroutine for each job is the original's way, and why its queue has no bound.
		go func(job Job) {
			jobChannel := <-d.WorkerPool
			jobChannel <- job
		}(job)
	}
}

func telemetry(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	var document Document
	if err := json.NewDecoder(io.LimitReader(r.Body, bodyLimit)).Decode(&document); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, payload := range document.Data {
		JobQueue <- Job{Payload: payload}
	}
	w.WriteHeader(http.StatusOK)
}

func numberFromEnvironment(name string) int {
	number, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		log.Fatalf("%s must be a number: %v", name, err)
	}
	return number
}

func main() {
	address := flag.String("address", "127.0.0.1:8080", "where to listen")
	record := flag.String("done", "", "the file that jobs write to")
	flag.Parse()
	if *record != "" {
		file, err := os.OpenFile(*record, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			log.Fatal(err)
		}
		done = file
	}

	JobQueue = make(chan Job, numberFromEnvironment("MAX_QUEUE"))
	NewDispatcher(numberFromEnvironment("MAX_WORKERS")).Run()

	http.HandleFunc("/telemetry", telemetry)
	log.Fatal(http.ListenAndServe(*address, nil))
}
