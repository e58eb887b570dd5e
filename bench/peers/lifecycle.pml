/*
 * The life of one SATA function between ahci and vfio-pci, for Spin: the peer of the shipped case
 * managed-outlives-driver. Same events, same faults, same question: does pci_intx() allocate under vfio's
 * interrupt lock because is_managed outlived ahci?
 *
 *   spin -a lifecycle.pml && gcc -DSAFETY -DBFS -o pan pan.c && ./pan            the error, shortest trail
 *   spin -DFIXED=1 -a lifecycle.pml && ...                                       fc8c818e7569: no error
 *
 * Only what the fault needs is here: no config space, no interrupt descriptors, no IOMMU.
 */

#ifndef FIXED
#define FIXED 0
#endif
#ifndef FAULTS
#define FAULTS 1		/* how many allocations may fail in one life */
#endif

mtype = { NONE, AHCI, VFIO };

mtype driver = NONE;
bool powered, is_managed;	/* struct pci_dev */
bool msi, disintx;		/* the hardware: MSI enable, COMMAND.INTX_DISABLE */
bool record;			/* pcim_intx()'s devres record */
bool opened, intx, masked;	/* vfio: device file, INTx mode, masked for the guest */
bool irqlock;			/* vfio's interrupt lock, a spinlock */
byte faults = FAULTS;
bool ok;			/* result of the last allocation */

/* kmalloc(GFP_KERNEL): may sleep, may fail */
inline alloc()
{
	assert(!irqlock);
	if
	:: ok = true
	:: faults > 0 -> faults--; ok = false
	fi
}

/* drivers/pci/pci.c, v6.11-rc7: managed only if the bit changes */
inline pci_intx(on)
{
	if
	:: disintx == on ->
		if
		:: !is_managed || record -> disintx = !on
		:: else ->
			alloc();
			if
			:: ok -> record = true; disintx = !on
			:: else
			fi
		fi
	:: else
	fi
}

/* what devres gives back at unbind, newest first */
inline release_managed()
{
	if
	:: record -> record = false; disintx = false
	:: else
	fi;
	msi = false;
	powered = false;
	if
	:: FIXED -> is_managed = false
	:: else
	fi
}

inline bind_ahci()
{
	alloc();				/* pcim_enable_device() */
	if
	:: ok ->
		driver = AHCI; powered = true; is_managed = true; disintx = false;
		alloc();			/* pci_alloc_irq_vectors(): MSI, else INTx */
		if
		:: ok -> msi = true; pci_intx(false)
		:: else -> pci_intx(true)
		fi
	:: else
	fi
}

inline bind_vfio()
{
	alloc();
	if
	:: ok -> driver = VFIO
	:: else
	fi
}

inline vfio_intx_on()
{
	alloc();
	if
	:: ok -> masked = false; pci_intx(true); intx = true
	:: else
	fi
}

inline vfio_mask()
{
	irqlock = true;
	pci_intx(false);
	masked = true;
	irqlock = false
}

inline vfio_close()
{
	intx = false; masked = false; opened = false; powered = false;
	disintx = true				/* COMMAND := INTX_DISABLE */
}

active proctype life()
{
end:	do
	:: atomic { driver == NONE -> printf("EVENT bind ahci\n"); bind_ahci() }
	:: atomic { driver == NONE -> printf("EVENT bind vfio-pci\n"); bind_vfio() }
	:: atomic { driver == AHCI -> printf("EVENT unbind\n"); release_managed(); driver = NONE }
	:: atomic { driver == VFIO && !opened -> printf("EVENT unbind\n"); driver = NONE }
	:: atomic { driver == VFIO && !opened -> printf("EVENT vfio-open\n");
		opened = true; powered = true; disintx = false }
	:: atomic { opened -> printf("EVENT vfio-close\n"); vfio_close() }
	:: atomic { opened && !intx -> printf("EVENT vfio-intx-on\n"); vfio_intx_on() }
	:: atomic { intx -> printf("EVENT vfio-intx-off\n"); intx = false; masked = false }
	:: atomic { intx && !masked -> printf("EVENT vfio-intx-mask\n"); vfio_mask() }
	:: atomic { intx && masked -> printf("EVENT vfio-intx-unmask\n"); disintx = false; masked = false }
	:: atomic { intx && !masked && !disintx -> printf("EVENT interrupt\n"); disintx = true; masked = true }
	od
}

/* A guest that masked its interrupt has masked the device's too. Checked with -DLTL (and without -DSAFETY). */
#ifdef LTL
ltl masked_is_masked { [] (masked -> (disintx || irqlock)) }
#endif
