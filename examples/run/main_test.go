package main

func Example() {
	main()
	// Output:
	// draining the outbox
	// another instance is refused: true
	// error: <nil>
}
