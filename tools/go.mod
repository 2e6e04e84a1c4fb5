// What makes and checks the source but is no part of the program lives in a
// module of its own, so that none of it is in the program's list of modules.
module sallyport/tools

go 1.26.0

require github.com/cpuguy83/go-md2man/v2 v2.0.7

require github.com/russross/blackfriday/v2 v2.1.0 // indirect
