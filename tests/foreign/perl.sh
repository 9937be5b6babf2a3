# Perl with the compiled extensions that are part of it.
# packages: perl
# needs: perl
# needs-success: perl -MCompress::Zlib -Mthreads -MDigest::SHA -MUnicode::Normalize -e 1
# pinned: /POSIX\.so
# pinned: /Storable\.so
# results: 10
# quick
perl -e '
    use strict; use warnings;
    use POSIX qw(strftime floor); use Storable qw(freeze thaw dclone); use Digest::SHA qw(sha256_hex);
    use Digest::MD5 qw(md5_hex); use Encode; use List::Util qw(sum reduce shuffle); use Time::HiRes qw(usleep);
    use Data::Dumper; use Socket; use Compress::Zlib; use Sys::Hostname; use threads; use Unicode::Normalize;
    use Math::BigInt; use Hash::Util; use B;
    $Data::Dumper::Sortkeys = 1; $Data::Dumper::Indent = 1;
    print "floor: ", floor(-1.5), "\n";
    print "time: ", strftime("%Y-%m-%d", gmtime(1e9)), "\n";
    print "storable: ", Dumper(thaw(freeze({a => [1 .. 3], b => {c => "d"}})));
    print "sha: ", sha256_hex("sopin"), "\nmd5: ", md5_hex("sopin"), "\n";
    print "encode: ", length(encode("UTF-16LE", "\x{263a}abc")), " ", NFD("\x{e4}") eq "a\x{308}", "\n";
    print "sum: ", sum(1 .. 100), " ", reduce { $a * $b } 1 .. 10; print "\n";
    print "socket: ", inet_ntoa(inet_aton("127.0.0.1")), "\n";
    print "zlib: ", uncompress(compress("x" x 1000)) eq "x" x 1000, "\n";
    my @threads = map { my $n = $_; threads->create(sub { sum(map { sqrt } 1 .. $n * 1000) }) } 1 .. 4;
    printf "threads: %.6f\n", $_->join for @threads;
    my $child = fork // die; if (!$child) { require IO::Socket; exit 7 } waitpid $child, 0; print "child: ", $? >> 8, "\n";
    print "big: ", Math::BigInt->new(2)->bpow(200), "\n";
    eval { die { code => 42 } }; print "die: $@->{code}\n";
'
