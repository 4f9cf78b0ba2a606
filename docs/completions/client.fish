complete -c client -s u -l user -d 'Log in as NAME at start' -r
complete -c client -l password-file -d 'The first line of FILE is the password; \'-\' is stdin [else: env FILESHARE_PASSWORD, else a hidden prompt]' -r -F
complete -c client -s d -l dir -d 'The folder to share from and download to' -r -F
complete -c client -s c -l command -d 'Run this command; may be given several times. A leading \'-\' ignores its failure' -r
complete -c client -s b -l batch -d 'Run the commands in FILE, one a line; \'-\' is stdin' -r -F
complete -c client -l listen -d 'Where to listen for peers [default: the address that faces the server, a free port]' -r
complete -c client -l color -d 'Colours in text' -r -f -a "auto\t'At a terminal, unless NO_COLOR is set or TERM is dumb'
always\t'Also in a pipe'
never\t'None'"
complete -c client -l on-exists -d 'What \'get\' does when the file is there already' -r -f -a "error\t'Refuse'
overwrite\t'Replace it, atomically'
rename\t'Save as `name (1).ext`'
skip\t'Leave it and succeed'"
complete -c client -l retry-for -d 'How long \'get\' waits for a source to return when all are gone' -r
complete -c client -l limit-rate -d 'Bytes a second over all uploads; K, M and G are powers of 1024' -r
complete -c client -l upload-slots -d 'Uploads that may run at the same time' -r
complete -c client -s a -l attach -d 'Run the commands in a client that already runs here: the only one, or that of NAME or of the server'
complete -c client -l no-control -d 'No control socket: nobody can attach to this client'
complete -c client -l stay -d 'After the commands, stay online and keep serving until SIGINT or SIGTERM'
complete -c client -l json -d 'One JSON object a line on stdout instead of text'
complete -c client -l events -d 'With --json, report events beside the commands, from the start'
complete -c client -l tcp-only -d 'Transfer over TCP between clients of one user on one host too, where files are passed directly otherwise'
complete -c client -s q -l quiet -d 'No greetings, no notes'
complete -c client -s v -l verbose -d 'More detail on stderr; twice for still more'
complete -c client -s h -l help -d 'Print help (see more with \'--help\')'
complete -c client -s V -l version -d 'Print version'
