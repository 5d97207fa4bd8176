package main

func Example() {
	main()
	// Output:
	// there is one leader
	// the other one leads: true
}
