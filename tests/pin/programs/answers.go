// Answers questions at a socket until its standard input ends, and then exits with 42. Each answer
// calls a C library from several goroutines, which the scheduler moves between threads.
package main

/*
#cgo LDFLAGS: -lanswers
extern unsigned answer(unsigned question);
*/
import "C"

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"sync"
)

func answer(question uint32) uint32 {
	var answers [8]uint32
	var all sync.WaitGroup
	for i := range answers {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			answers[i] = uint32(C.answer(C.uint(question + uint32(i))))
		}(i)
	}
	all.Wait()
	sum := uint32(0)
	for _, one := range answers {
		sum = sum*31 + one
	}
	return sum
}

func serve(connection net.Conn) {
	defer connection.Close()
	lines := bufio.NewScanner(connection)
	for lines.Scan() {
		var question uint32
		if _, err := fmt.Sscan(lines.Text(), &question); err != nil {
			return
		}
		fmt.Fprintln(connection, answer(question))
	}
}

func main() {
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(connection)
		}
	}()
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
	}
	os.Exit(42)
}
